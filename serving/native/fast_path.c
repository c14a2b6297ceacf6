/* A decision from bytes to bytes: what serving/shim.py, decider.py and answer.py decide and log for an ordinary request,
   done in one call. serving/course.py says which streams are ordinary and makes their courses; whatever a request has
   that is not ordinary is left to the whole path, by returning None: nothing is refused here. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "deciding.h"
#include "parts.h"

static PyTypeObject *MARKS_TYPE, *HELD_TYPE; /* as long as the module */

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
static int read_reply(PyObject *const *args, Py_ssize_t n, Terms *terms, Text *head) {
    if (n != 7 || !PyObject_TypeCheck(args[0], MARKS_TYPE) || !PyObject_TypeCheck(args[1], HELD_TYPE) || !PyList_Check(args[4])
        || !PyDict_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "reply takes marks, held, at_us, times, sent, heads and head");
        return -1;
    }
    terms->marks = (Marks *)args[0];
    terms->held = (HeldLines *)args[1];
    terms->moment.at_us = args[2] == Py_None ? NOW : PyLong_AsLongLong(args[2]);
    return PyErr_Occurred() || as_text(args[3], &terms->times) < 0 || as_text(args[6], head) < 0 ? -1 : 0;
}

/* reply(marks, held, at_us, times, sent, heads, head): of each of the bytes that connections `sent`, the replies to the HTTP requests it
   begins with and where these end, or None. `at_us` None is now, `heads` says what is known of heads (see http.h), `head` is the
   reply's up to the length of its body. */
static PyObject *FastPath_reply(FastPath *self, PyObject *const *args, Py_ssize_t n) {
    Terms terms;
    Text head, sent;
    if (read_reply(args, n, &terms, &head) < 0) return NULL;
    const Py_ssize_t n_sent = PyList_Size(args[4]);
    PyObject *told = PyList_New(n_sent);
    for (Py_ssize_t i = 0; told && i < n_sent; i++) {
        PyObject *reply = as_text(PyList_GetItem(args[4], i), &sent) < 0 ? NULL : reply_to(self, &terms, sent, args[5], head);
        if (!reply || PyList_SetItem(told, i, reply) < 0) Py_CLEAR(told);
    }
    trim(&self->desk.answers);
    trim(&self->replies);
    return told;
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
                      self->tally.decisions,  self->replies.bytes};
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
     "reply(marks, held, at_us, times, sent, heads, head, /)\n--\n\nDo as `answer` does for HTTP requests that are known by their heads."},
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
