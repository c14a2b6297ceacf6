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

#include "content.h"
#include "http.h"
#include "keeping.h"
#include "parts.h"

typedef struct {
    PyObject_HEAD
    PyObject *kept; /* a list of what the names of types lead to */
    Course *courses;
    Py_ssize_t n_courses;
    Names types;
    Desk desk;
    Made *made; /* [MAX_BATCH] */
    size_t n_made;
    Tally tally;
    int is_busy;
} FastPath;

/* How a request is to be decided, from the arguments that `answer` and `reply` share. */
typedef struct {
    Moment moment;
    Text times;
    Marks *marks;
    HeldLines *held;
} Terms;

static PyTypeObject *MARKS_TYPE, *HELD_TYPE; /* as long as the module */

/* Decide one request; 0 where the whole path is to take it, maybe with an error set that tells why. */
static int decide_one(FastPath *self, int32_t request, int is_bare, const Terms *terms) {
    Desk *desk = &self->desk;
    const Moment *moment = &terms->moment;
    double statically[MAX_CANDIDATES], mixed[MAX_CANDIDATES];
    Py_ssize_t places[MAX_CANDIDATES];
    char unit[2 * MAX_IDENTIFIER_BYTES + 1];
    Choice choice;
    desk->asked.at_us = moment->at_us;
    if (!read_question(&desk->json, request, is_bare, &self->types, self->courses, &desk->asked)) return 0;
    Course *course = desk->asked.course;
    const Order *order = find_order(desk);
    if (!order || mask_candidates(&desk->json, &desk->asked) != 1 || !read_event_cells(desk) || read_content(desk) != 1
        || write_numbers(desk) != 1 || !write_categories(desk))
        return 0;
    place_candidates(&desk->asked, order, places);
    choose_statically(&desk->asked, places, course->exploration.static_epsilon, statically);
    for (int r = 0; r < course->n_roles; r++)
        if (score_role(desk, &course->roles[r]) != 1) return 0;
    if (!draw_choice(desk, statically, mixed, unit, &choice)) return 0;
    Made *made = &self->made[self->n_made++];
    *made = (Made){.mark = find_mark(desk), .course = course - self->courses, .arm = choice.arm};
    fetch_mark(terms->marks, made->mark);
    mark_id(desk, made);
    write_answer(desk, &choice, places, made->mark, moment);
    made->latency_us = write_record(desk, &choice, statically, made->mark, moment);
    made->line_end = desk->records.size;
    return !(desk->records.failed || desk->answers.failed || desk->rows.failed || desk->categories.failed || desk->hashed.failed);
}

/* Decide all requests of a body; a batch is taken whole or not at all. */
static int decide_all(FastPath *self, int is_bare, const Terms *terms) {
    const Json *json = &self->desk.json;
    Output *answers = &self->desk.answers;
    if (json->tokens[0].kind != ARRAY) return decide_one(self, 0, is_bare, terms);
    PUT(answers, "[");
    for (int32_t request = 1; request < json->tokens[0].next; request = json->tokens[request].next) {
        if (self->n_made) PUT(answers, ",");
        if (self->n_made == MAX_BATCH || !decide_one(self, request, is_bare, terms)) return 0;
    }
    PUT(answers, "]");
    return self->n_made > 0 && !answers->failed; /* an empty batch is for the whole path */
}

/* Begin with what a request brings; memory that once failed may be there again. */
static void clear_desk(FastPath *self, Text times) {
    Desk *desk = &self->desk;
    Output *outputs[] = {&desk->rows, &desk->categories, &desk->records, &desk->answers, &desk->hashed};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) outputs[i]->failed = 0;
    desk->records.size = desk->answers.size = 0;
    desk->times = (const double *)times.at;
    desk->n_times = (Py_ssize_t)(times.size / sizeof(double));
    self->n_made = 0;
}

/* Whether bytes are UTF-8, by Python's own reader. */
static int is_unicode(const char *bytes, Py_ssize_t n) {
    PyObject *text = PyUnicode_DecodeUTF8(bytes, n, NULL);
    const int is_sound = text != NULL;
    Py_XDECREF(text);
    PyErr_Clear();
    return is_sound;
}

/* Decide what a body asks and keep it; 0 where the whole path is to take it. The answers are the desk's. */
static int decide_body(FastPath *self, Text body, int is_bare, Terms *terms) {
    if (self->is_busy) return 0; /* a model runs Python, and with it somebody who asks as well: nothing of the desk is touched */
    self->is_busy = 1;
    terms->moment.at_text = (Text){terms->moment.quoted, write_instant(terms->moment.at_us, terms->moment.quoted)};
    clear_desk(self, terms->times);
    const int is_done = read_json(&self->desk.json, body.at, body.size)
                        && (self->desk.json.is_ascii || is_unicode(body.at, (Py_ssize_t)body.size))
                        && decide_all(self, is_bare, terms)
                        && keep(&self->desk, self->made, self->n_made, terms->marks, terms->held, &self->tally);
    trim_json(&self->desk.json);
    trim(&self->desk.records);
    self->is_busy = 0;
    PyErr_Clear(); /* what a model raised it raises again where it is told of */
    return is_done;
}

/* answer(body, is_bare, at_us, times, marks, held): the answer to a body, or None. */
static PyObject *FastPath_answer(FastPath *self, PyObject *args) {
    Terms terms;
    Text body;
    Py_ssize_t size, times_size;
    long long at_us;
    int is_bare;
    clock_gettime(CLOCK_MONOTONIC, &terms.moment.started);
    if (!PyArg_ParseTuple(args, "y#pLy#O!O!", &body.at, &size, &is_bare, &at_us, &terms.times.at, &times_size, MARKS_TYPE,
                          &terms.marks, HELD_TYPE, &terms.held))
        return NULL;
    body.size = (size_t)size;
    terms.times.size = (size_t)times_size;
    terms.moment.at_us = at_us;
    if (!decide_body(self, body, is_bare, &terms)) Py_RETURN_NONE;
    PyObject *answer = PyBytes_FromStringAndSize(self->desk.answers.bytes, (Py_ssize_t)self->desk.answers.size);
    trim(&self->desk.answers);
    return answer;
}

/* Read `reply`'s arguments; -1 with an error set where they are not what they should be. */
static int read_reply(PyObject *const *args, Py_ssize_t n, Terms *terms, Text *data, Py_ssize_t *start, Text *head) {
    if (n != 8 || !PyObject_TypeCheck(args[0], MARKS_TYPE) || !PyObject_TypeCheck(args[1], HELD_TYPE) || !PyDict_Check(args[6])) {
        PyErr_SetString(PyExc_TypeError, "reply takes marks, held, at_us, times, data, start, heads and head");
        return -1;
    }
    terms->marks = (Marks *)args[0];
    terms->held = (HeldLines *)args[1];
    terms->moment.at_us = args[2] == Py_None ? read_clock_us() : PyLong_AsLongLong(args[2]);
    *start = PyLong_AsSsize_t(args[5]);
    if (PyErr_Occurred() || as_text(args[3], &terms->times) < 0 || as_text(args[4], data) < 0 || as_text(args[7], head) < 0) return -1;
    if (*start >= 0 && (size_t)*start <= data->size) return 0;
    PyErr_Format(PyExc_ValueError, "start must be 0 to %zu, got %zd", data->size, *start);
    return -1;
}

/* reply(marks, held, at_us, times, data, start, heads, head): the whole reply to the HTTP request that begins at start, and where
   it ends; or None. `at_us` None is now, `heads` says what is known of heads (see http.h), `head` is the reply's up to the length of
   its body. */
static PyObject *FastPath_reply(FastPath *self, PyObject *const *args, Py_ssize_t n) {
    Terms terms;
    Text whole, data, head, body;
    Py_ssize_t start;
    int is_bare;
    clock_gettime(CLOCK_MONOTONIC, &terms.moment.started);
    if (read_reply(args, n, &terms, &whole, &start, &head) < 0) return NULL;
    data = (Text){whole.at + start, whole.size - (size_t)start};
    if (find_body(data, args[6], &body, &is_bare) != 1 || !decide_body(self, body, is_bare, &terms)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyObject *reply = make_reply(head, &self->desk.answers);
    trim(&self->desk.answers);
    return reply ? Py_BuildValue("(Nn)", reply, (Py_ssize_t)(body.at + body.size - whole.at)) : NULL;
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
    if (PyList_SetItem(course->kept, LIVE, rows) < 0) return NULL;
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

/* FastPath(courses, types, bounds): `types` are (type of event, place of its course), `bounds` those of the seconds counted. */
static int FastPath_init(FastPath *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"courses", "types", "bounds", NULL};
    PyObject *courses, *types, *bounds;
    if (self->kept) {
        PyErr_SetString(PyExc_TypeError, "a fast path is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!", names, &PyTuple_Type, &courses, &PyTuple_Type, &types,
                                     &PyTuple_Type, &bounds)
        || read_bounds(&self->tally, bounds) < 0)
        return -1;
    const Py_ssize_t n_types = PyTuple_Size(types);
    const size_t n_entries = count_entries((size_t)n_types);
    Py_INCREF(types);
    self->kept = types;
    self->n_courses = PyTuple_Size(courses);
    self->types = (Names){calloc(n_entries, sizeof(Entry)), n_entries - 1};
    self->courses = calloc((size_t)self->n_courses + 1, sizeof(Course));
    self->made = calloc(MAX_BATCH, sizeof(Made));
    self->tally.decisions = calloc((size_t)self->n_courses * N_ARMS + 1, sizeof(uint64_t));
    if (!self->types.entries || !self->courses || !self->made || !self->tally.decisions) {
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

static PyObject *FastPath_take_counts(FastPath *self, PyObject *unused) {
    (void)unused;
    return take_counts(&self->tally, self->courses, self->n_courses);
}

static void FastPath_dealloc(FastPath *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Desk *desk = &self->desk;
    void *memory[] = {desk->json.tokens,      desk->rows.bytes,          desk->categories.bytes,      desk->records.bytes,
                      desk->answers.bytes,    desk->hashed.bytes,        desk->event_cells,           desk->asked.event_tokens,
                      desk->operands,         desk->category_values,     desk->asked.candidate_tokens, desk->asked.measure_tokens,
                      desk->matrix,           desk->marks,               self->types.entries,         self->made,
                      self->tally.decisions};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) free(memory[i]);
    for (Py_ssize_t i = 0; self->courses && i < self->n_courses; i++) Py_XDECREF(self->courses[i].kept);
    free(self->courses);
    Py_XDECREF(self->kept);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef type_methods[] = {
    {"answer", (PyCFunction)FastPath_answer, METH_VARARGS,
     "answer(body, is_bare, at_us, times, marks, held, /)\n--\n\nDecide what a body asks, keep it, and return the answer, or None."},
    {"reply", (PyCFunction)(void (*)(void))FastPath_reply, METH_FASTCALL,
     "reply(marks, held, at_us, times, data, start, heads, head, /)\n--\n\nDo as `answer` does for an HTTP request that is known by its head."},
    {"take_counts", (PyCFunction)FastPath_take_counts, METH_NOARGS,
     "take_counts()\n--\n\nReturn what was counted since last asked."},
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

static PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *of) {
    PyObject *type = PyType_FromSpec(of);
    if (!type || PyModule_AddObjectRef(module, name, type) == 0) return (PyTypeObject *)type;
    Py_DECREF(type);
    return NULL;
}

static int execute(PyObject *module) {
    make_crc_tables();
    make_sign_table();
    find_direct();
    MARKS_TYPE = add_type(module, "Marks", &marks_spec);
    HELD_TYPE = add_type(module, "HeldLines", &held_spec);
    PyTypeObject *type = add_type(module, "FastPath", &spec);
    Py_XDECREF((PyObject *)type);
    return MARKS_TYPE && HELD_TYPE && type ? 0 : -1;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast_path", "Decisions from bytes to bytes.", 0, parts_methods,
                             module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast_path(void) { return PyModuleDef_Init(&module); }
