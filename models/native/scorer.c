/* Scoring an event's text: the C form of models/scorer.py.

   What Python remembers of the pieces of a text (the words and n-grams that the classifier knows) is counted, weighed by
   TF-IDF, made of unit length block by block, and given to the linear part, the neural part and the components. Every sum
   runs in the order in which the numpy form adds, so that both give the same bits. Most of the work is reading memory: a
   term's weights lie side by side, and four terms' are added in one pass.

   No index is trusted: those of the vocabulary are checked when it is taken, those of a piece as they are read. The arrays
   of weights stay where they are, since no value in them can lead a read outside of them. What an event needs room for is
   the object's own, and used only while the interpreter's lock is held. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"
#include "terms.h"

/* Forget the event before, wherever it ended. */
static void forget(Scorer *self) {
    for (; self->n_told; self->n_told--) self->count[self->columns[self->n_told - 1]] = 0;
}

/* What is said of an event: the best class, the greatest logit of a class, that of the column past the classes. */
typedef struct {
    Py_ssize_t best;
    double evidence, outside;
} Said;

/* Score what was encoded. */
static Said score_encoded(Scorer *self, double *probabilities) {
    score_linear(self);
    score_neural(self);
    add_rows(&self->arrays[COMPONENTS], self->columns, self->values, self->n_told, self->placed);
    Said said = {.evidence = find_probabilities(self, probabilities)};
    said.outside = self->n_columns > self->n_classes ? self->logits[self->n_classes] : -HUGE_VAL;
    for (Py_ssize_t i = 1; i < self->n_classes; i++)
        if (probabilities[i] > probabilities[said.best]) said.best = i;
    return said;
}

/* Score an event; `place` is a new tuple for its components. From the first look at the event to the last nothing is made
   that garbage is collected for: a finalizer could score another event, or let another thread do so. */
static PyObject *score_event(Scorer *self, PyObject *pieces, PyObject *facts, double *probabilities, PyObject *place) {
    forget(self);
    if (encode(self, pieces, facts) < 0) return NULL;
    if (!self->n_told) return Py_NewRef(Py_None);
    const Said said = score_encoded(self, probabilities);
    for (Py_ssize_t i = 0; i < self->n_components; i++) {
        PyObject *number = PyFloat_FromDouble((double)self->placed[i]);
        if (!number || PyTuple_SetItem(place, i, number) < 0) return NULL;
    }
    return Py_BuildValue("ndddO", said.best, probabilities[said.best], said.evidence, said.outside, place);
}

static PyObject *Scorer_score(Scorer *self, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 3) return PyErr_Format(PyExc_TypeError, "score takes pieces, facts and probabilities, got %zd", n_args);
    Py_buffer out;
    PyObject *place = PyTuple_New(self->n_components), *result = NULL;
    if (!place) return NULL;
    if (PyObject_GetBuffer(args[2], &out, PyBUF_WRITABLE) == 0) {
        if (out.len != self->n_classes * (Py_ssize_t)sizeof(double) || (uintptr_t)out.buf % sizeof(double))
            PyErr_Format(PyExc_ValueError, "%zd classes do not take %zd bytes", self->n_classes, out.len);
        else
            result = score_event(self, args[0], args[1], out.buf, place);
        PyBuffer_Release(&out);
    }
    Py_DECREF(place);
    return result;
}

static void Scorer_dealloc(Scorer *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    void *rooms[] = {self->words, self->pairs, self->count, self->columns, self->weighed, self->values, self->read,
                     self->active, self->hidden, self->of_linear, self->of_neural, self->placed, self->logits};
    for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; i++) free(rooms[i]);
    for (int which = 0; which < N_ARRAYS; which++) PyBuffer_Release(&self->arrays[which]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *Scorer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *objects[N_ARRAYS];
    PyObject **o = objects;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Scorer *self = (Scorer *)alloc(type, 0);
    if (self && PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOOOOniindff", names, o, o + 1, o + 2, o + 3, o + 4, o + 5, o + 6,
                                            o + 7, o + 8, o + 9, o + 10, &self->n_classes, &self->start, &self->end, &self->span,
                                            &self->block_weight, &self->linear_scale, &self->neural_scale)
        && take_arrays(self, objects) == 0 && alloc_room(self) == 0 && take_vocabulary(self) == 0)
        return (PyObject *)self;
    Py_XDECREF((PyObject *)self);
    return NULL;
}

static PyMethodDef methods[] = {
    {"score", (PyCFunction)(void (*)(void))Scorer_score, METH_FASTCALL,
     "score(pieces, facts, probabilities, /)\n--\n\nFill probabilities, float64[n_classes]; None where nothing is known."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A classifier's arrays, checked once, and what an event is scored in."},
    {Py_tp_new, Scorer_new},
    {Py_tp_dealloc, Scorer_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"models._scorer.Scorer", sizeof(Scorer), 0, Py_TPFLAGS_DEFAULT, slots};

static int execute(PyObject *module) {
    PyObject *type = PyType_FromSpec(&spec);
    const int failed = !type || PyModule_AddObjectRef(module, "Scorer", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scorer", "Scoring an event's text.", 0, NULL, module_slots,
                             NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scorer(void) { return PyModuleDef_Init(&module); }
