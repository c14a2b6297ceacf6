/* A decision from bytes to bytes: what serving/shim.py, decider.py and answer.py decide and log for an ordinary request,
   done in one call. serving/course.py says which streams are ordinary and makes their courses; whatever a request has
   that is not ordinary is left to the whole path, by returning None: nothing is refused here. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "marks.h"
#include "record.h"

#define MAX_BATCH 1024

typedef struct {
    PyObject_HEAD
    PyObject *kept; /* a list of what the names of types lead to */
    Course *courses;
    Py_ssize_t n_courses;
    Names types;
    Desk desk;
    int is_busy;
} FastPath;

static PyObject *report(Desk *desk, const Choice *choice, uint64_t mark, double latency_us) {
    const Question *asked = &desk->asked;
    const Token *own = asked->decision_id == ABSENT ? NULL : &desk->json.tokens[asked->decision_id];
    return Py_BuildValue("(y#y#Kz#Od)", desk->answer.bytes, (Py_ssize_t)desk->answer.size, desk->record.bytes,
                         (Py_ssize_t)desk->record.size, (unsigned long long)mark, own ? own->text.at : NULL,
                         own ? (Py_ssize_t)own->text.size : 0, PyTuple_GetItem(asked->course->keys, choice->arm), latency_us);
}

/* Decide one request; a tuple for the caller, or NULL: with an error set, or without one for the whole path to take. */
static PyObject *decide_one(FastPath *self, int32_t request, int is_bare, const Moment *moment) {
    Desk *desk = &self->desk;
    double statically[MAX_CANDIDATES], mixed[MAX_CANDIDATES];
    Py_ssize_t places[MAX_CANDIDATES];
    char unit[2 * MAX_IDENTIFIER_BYTES + 1];
    Choice choice;
    desk->asked.at_us = moment->at_us;
    if (!read_question(&desk->json, request, is_bare, &self->types, self->courses, &desk->asked)) return NULL;
    Course *course = desk->asked.course;
    const int32_t text = course->text_slot < 0 ? ABSENT : desk->asked.event_tokens[course->text_slot];
    if (text != ABSENT && desk->json.tokens[text].kind != STRING && desk->json.tokens[text].kind != NIL) return NULL;
    const Order *order = find_order(desk);
    if (!order || mask_candidates(&desk->json, &desk->asked) != 1 || !read_event_cells(desk) || write_numbers(desk) != 1
        || !write_categories(desk))
        return NULL;
    place_candidates(&desk->asked, order, places);
    choose_statically(&desk->asked, places, course->exploration.static_epsilon, statically);
    for (int r = 0; r < course->n_roles; r++)
        if (score_role(desk, &course->roles[r]) != 1) return NULL;
    if (!draw_choice(desk, statically, mixed, unit, &choice)) return NULL;
    const uint64_t mark = find_mark(desk);
    write_answer(desk, &choice, places, mark, moment);
    const double latency_us = write_record(desk, &choice, statically, mark, moment);
    if (desk->record.failed || desk->answer.failed || desk->rows.failed || desk->categories.failed || desk->hashed.failed) {
        PyErr_NoMemory();
        return NULL;
    }
    return report(desk, &choice, mark, latency_us);
}

/* A list of what was decided, or NULL as above; a batch is taken whole or not at all. */
static PyObject *decide_all(FastPath *self, int is_bare, const Moment *moment, int *is_batch) {
    const Json *json = &self->desk.json;
    *is_batch = json->tokens[0].kind == ARRAY;
    PyObject *decided = PyList_New(0);
    int32_t request = *is_batch ? 1 : 0;
    const int32_t end = json->tokens[0].next;
    for (; decided && request < end; request = *is_batch ? json->tokens[request].next : end) {
        PyObject *one = PyList_Size(decided) < MAX_BATCH ? decide_one(self, request, is_bare, moment) : NULL;
        if (!one || PyList_Append(decided, one) < 0) Py_CLEAR(decided);
        Py_XDECREF(one);
    }
    if (decided && !PyList_Size(decided)) Py_CLEAR(decided); /* an empty batch */
    return decided;
}

/* Begin with what a request brings; memory that once failed may be there again. */
static void clear_desk(Desk *desk, const double *times, Py_ssize_t n_times) {
    Output *outputs[] = {&desk->rows, &desk->categories, &desk->record, &desk->answer, &desk->hashed};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) outputs[i]->failed = 0;
    desk->times = times;
    desk->n_times = n_times;
}

/* Whether bytes are UTF-8, by Python's own reader. */
static int is_unicode(const char *bytes, Py_ssize_t n) {
    PyObject *text = PyUnicode_DecodeUTF8(bytes, n, NULL);
    const int is_sound = text != NULL;
    Py_XDECREF(text);
    PyErr_Clear();
    return is_sound;
}

static PyObject *FastPath_decide(FastPath *self, PyObject *args) {
    Py_buffer body, times = {0};
    Moment moment;
    int is_bare, is_batch = 0;
    long long at_us;
    Py_ssize_t at_size;
    PyObject *decided = NULL;
    clock_gettime(CLOCK_MONOTONIC, &moment.started);
    if (!PyArg_ParseTuple(args, "y*py#Ly*", &body, &is_bare, &moment.at_text.at, &at_size, &at_us, &times)) return NULL;
    moment.at_text.size = (size_t)at_size;
    moment.at_us = at_us;
    if (!self->is_busy) { /* a model may run Python, and with it somebody who asks as well: nothing of the desk is touched */
        self->is_busy = 1;
        clear_desk(&self->desk, times.buf, times.len / (Py_ssize_t)sizeof(double));
        if (read_json(&self->desk.json, body.buf, (size_t)body.len)
            && (self->desk.json.is_ascii || is_unicode(body.buf, body.len)))
            decided = decide_all(self, is_bare, &moment, &is_batch);
        trim_json(&self->desk.json);
        self->is_busy = 0;
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&times);
    if (decided) return Py_BuildValue("(NN)", decided, PyBool_FromLong(is_batch));
    PyErr_Clear(); /* what a model raised it raises again where it is told of */
    Py_RETURN_NONE;
}

/* set_live(place, rows): what is known of a course's destinations from now on; False while a decision is under way. */
static PyObject *FastPath_set_live(FastPath *self, PyObject *args) {
    Py_ssize_t place;
    PyObject *rows;
    Text bytes;
    if (!PyArg_ParseTuple(args, "nO", &place, &rows) || as_text(rows, &bytes) < 0) return NULL;
    if (self->is_busy) Py_RETURN_FALSE;
    if (place < 0 || place >= self->n_courses) {
        PyErr_SetString(PyExc_ValueError, "there is no such course");
        return NULL;
    }
    Course *course = &self->courses[place];
    const size_t size = (size_t)(course->n_destinations * (N_LIVE + course->n_measures)) * sizeof(double);
    if (bytes.size != size || (uintptr_t)bytes.at % sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "live states must be %zu aligned bytes, got %zu", size, bytes.size);
        return NULL;
    }
    Py_INCREF(rows);
    if (PyList_SetItem(course->kept, 1, rows) < 0) return NULL;
    course->live = (const double *)bytes.at;
    Py_RETURN_TRUE;
}

/* Make room for what a course needs beyond those before it. */
static int grow_desk(Desk *desk, const Course *course) {
    const size_t n = MAX_CANDIDATES, n_numbers = (size_t)course->n_numbers, n_categories = (size_t)course->n_categories;
    const struct { void **memory; size_t size; } wants[N_ROOMS] = {
        {(void **)&desk->event_cells, (size_t)course->n_event * sizeof(Cell)},
        {(void **)&desk->asked.event_tokens, (size_t)course->n_event * sizeof(int32_t)},
        {(void **)&desk->asked.candidate_tokens, n * (size_t)course->n_candidate * sizeof(int32_t)},
        {(void **)&desk->asked.measure_tokens, n * (size_t)course->n_measures * sizeof(int32_t)},
        {(void **)&desk->marks, (n_numbers + 1) * sizeof(size_t)},
        {(void **)&desk->operands, n * (size_t)course->n_operands * sizeof(double)},
        {(void **)&desk->category_values, n * n_categories * sizeof(Text)},
        {(void **)&desk->matrix, n * (n_numbers + n_categories) * sizeof(double)}};
    for (size_t i = 0; i < N_ROOMS; i++) {
        if (*wants[i].memory && wants[i].size <= desk->sizes[i]) continue;
        void *memory = realloc(*wants[i].memory, wants[i].size + 1);
        if (!memory) return -1;
        *wants[i].memory = memory;
        desk->sizes[i] = wants[i].size;
    }
    return 0;
}

static int add_course(FastPath *self, Py_ssize_t place, PyObject *spec) {
    Course *course = &self->courses[place];
    if (read_course(course, spec) < 0) return -1;
    if (grow_desk(&self->desk, course) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* FastPath(courses, types): `types` are (type of event, place of its course). */
static int FastPath_init(FastPath *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"courses", "types", NULL};
    PyObject *courses, *types;
    if (self->kept) {
        PyErr_SetString(PyExc_TypeError, "a fast path is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!", names, &PyTuple_Type, &courses, &PyTuple_Type, &types)) return -1;
    const Py_ssize_t n_types = PyTuple_Size(types);
    const size_t n_entries = count_entries((size_t)n_types);
    Py_INCREF(types);
    self->kept = types;
    self->n_courses = PyTuple_Size(courses);
    self->types = (Names){calloc(n_entries, sizeof(Entry)), n_entries - 1};
    self->courses = calloc((size_t)self->n_courses + 1, sizeof(Course));
    if (!self->types.entries || !self->courses) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->n_courses; i++)
        if (add_course(self, i, PyTuple_GetItem(courses, i)) < 0) return -1;
    for (Py_ssize_t i = 0; i < n_types; i++) {
        Text name;
        Py_ssize_t size, place;
        if (!PyArg_ParseTuple(PyTuple_GetItem(types, i), "y#n", &name.at, &size, &place)) return -1;
        name.size = (size_t)size;
        if (place < 0 || place >= self->n_courses) {
            PyErr_SetString(PyExc_ValueError, "types must lead to courses");
            return -1;
        }
        add_name(&self->types, name, (int32_t)place);
    }
    return 0;
}

static void FastPath_dealloc(FastPath *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Desk *desk = &self->desk;
    void *memory[] = {desk->json.tokens,           desk->rows.bytes,
                      desk->categories.bytes,      desk->record.bytes,
                      desk->answer.bytes,          desk->hashed.bytes,
                      desk->event_cells,           desk->asked.event_tokens,
                      desk->asked.candidate_tokens, desk->asked.measure_tokens,
                      desk->operands,              desk->category_values,
                      desk->matrix,                desk->marks,
                      self->types.entries};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) free(memory[i]);
    for (Py_ssize_t i = 0; self->courses && i < self->n_courses; i++) Py_XDECREF(self->courses[i].kept);
    free(self->courses);
    Py_XDECREF(self->kept);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* For the tests: what the parts that stand on their own do. */
static PyObject *fast_path_digits(PyObject *module, PyObject *number) {
    (void)module;
    char text[MAX_DOUBLE_TEXT];
    const double value = PyFloat_AsDouble(number);
    if (PyErr_Occurred()) return NULL;
    return PyBytes_FromStringAndSize(text, (Py_ssize_t)write_double(value, text));
}

static PyObject *fast_path_number(PyObject *module, PyObject *text) {
    (void)module;
    Text read;
    double value;
    int is_integer;
    if (as_text(text, &read) < 0) return NULL;
    if (read_double(read.at, read.at + read.size, &value, &is_integer) != read.at + read.size) Py_RETURN_NONE;
    return PyFloat_FromDouble(value);
}

static PyObject *fast_path_instant(PyObject *module, PyObject *text) {
    (void)module;
    Text read;
    int64_t us;
    if (as_text(text, &read) < 0) return NULL;
    if (!read_instant(read, &us)) Py_RETURN_NONE;
    return PyLong_FromLongLong(us);
}

static PyObject *fast_path_hash(PyObject *module, PyObject *args) {
    (void)module;
    Text bytes, person;
    Py_ssize_t size, person_size;
    if (!PyArg_ParseTuple(args, "y#y#", &bytes.at, &size, &person.at, &person_size)) return NULL;
    if (person_size != PERSON_BYTES) {
        PyErr_Format(PyExc_ValueError, "person must have %d bytes, got %zd", PERSON_BYTES, person_size);
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(blake2b((const uint8_t *)bytes.at, (size_t)size, person.at));
}

static PyObject *fast_path_crc32(PyObject *module, PyObject *data) {
    (void)module;
    Text bytes;
    if (as_text(data, &bytes) < 0) return NULL;
    return PyLong_FromUnsignedLong(crc32(bytes.at, bytes.size));
}

static PyMethodDef type_methods[] = {
    {"decide", (PyCFunction)FastPath_decide, METH_VARARGS,
     "decide(body, is_bare, at, at_us, times, /)\n--\n\nReturn what was decided and whether it was a batch, or None."},
    {"set_live", (PyCFunction)FastPath_set_live, METH_VARARGS,
     "set_live(place, rows, /)\n--\n\nTake what is known of the destinations of a course; False while a decision is under way."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The ordinary streams of a shim as they are decided now."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, FastPath_init},
    {Py_tp_dealloc, FastPath_dealloc},
    {Py_tp_methods, type_methods},
    {0, NULL},
};

static PyType_Spec spec = {"serving._fast_path.FastPath", sizeof(FastPath), 0, Py_TPFLAGS_DEFAULT, slots};

static int add_type(PyObject *module, const char *name, PyType_Spec *of) {
    PyObject *type = PyType_FromSpec(of);
    const int failed = !type || PyModule_AddObjectRef(module, name, type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int execute(PyObject *module) {
    make_crc_tables();
    make_sign_table();
    return add_type(module, "FastPath", &spec) < 0 || add_type(module, "Marks", &marks_spec) < 0 ? -1 : 0;
}

static PyMethodDef methods[] = {
    {"digits", fast_path_digits, METH_O, "digits(value, /)\n--\n\nReturn a finite number as JSON."},
    {"number", fast_path_number, METH_O, "number(text, /)\n--\n\nReturn the number that JSON text is, None for none."},
    {"instant", fast_path_instant, METH_O, "instant(text, /)\n--\n\nReturn the microseconds from 1970 to an instant, or None."},
    {"blake2b", fast_path_hash, METH_VARARGS, "blake2b(data, person, /)\n--\n\nReturn eight bytes of BLAKE2b as a number."},
    {"crc32", fast_path_crc32, METH_O, "crc32(data, /)\n--\n\nReturn the CRC-32 of bytes."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast_path", "Decisions from bytes to bytes.", 0, methods,
                             module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast_path(void) { return PyModuleDef_Init(&module); }
