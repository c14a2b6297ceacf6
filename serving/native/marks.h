/* Where decisions lie by the marks of their events: serving/memory.py's two generations, in sixteen bytes an entry. */

#ifndef TURNOUT_MARKS_H
#define TURNOUT_MARKS_H

#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t mark; /* plus one, so that 0 is an empty place */
    uint64_t place;
} Remembered;

typedef struct {
    PyObject_HEAD
    Remembered *young, *old;
    size_t mask, half, n_young, n_old;
} Marks;

static size_t find_home(size_t mask, uint64_t mark) { return (size_t)(mark * 0x9e3779b97f4a7c15u >> 20) & mask; }

/* The place of a mark in a generation, or where it would stand; generations are never full. */
static Remembered *find_mark_in(Remembered *entries, size_t mask, uint64_t mark) {
    size_t at = find_home(mask, mark);
    while (entries[at].mark && entries[at].mark != mark + 1) at = (at + 1) & mask;
    return &entries[at];
}

static void remember(Marks *self, uint64_t mark, uint64_t place) {
    Remembered *found = find_mark_in(self->young, self->mask, mark);
    self->n_young += !found->mark;
    *found = (Remembered){mark + 1, place};
    if (self->n_young < self->half) return;
    Remembered *freed = self->old;
    self->old = self->young;
    self->n_old = self->n_young;
    self->young = freed;
    self->n_young = 0;
    memset(freed, 0, (self->mask + 1) * sizeof(Remembered));
}

static PyObject *Marks_remember(Marks *self, PyObject *args) {
    unsigned long long mark, place;
    if (!PyArg_ParseTuple(args, "KK", &mark, &place)) return NULL;
    remember(self, mark, place);
    Py_RETURN_NONE;
}

static PyObject *Marks_place(Marks *self, PyObject *number) {
    const uint64_t mark = PyLong_AsUnsignedLongLongMask(number);
    if (PyErr_Occurred()) return NULL;
    const Remembered *found = find_mark_in(self->young, self->mask, mark);
    if (!found->mark) {
        found = find_mark_in(self->old, self->mask, mark);
        if (!found->mark) Py_RETURN_NONE;
        const uint64_t place = found->place;
        remember(self, mark, place);
        return PyLong_FromUnsignedLongLong(place);
    }
    return PyLong_FromUnsignedLongLong(found->place);
}

static Py_ssize_t Marks_length(PyObject *object) {
    const Marks *self = (Marks *)object;
    size_t n = self->n_young;
    for (size_t at = 0; at <= self->mask; at++)
        n += self->old[at].mark && !find_mark_in(self->young, self->mask, self->old[at].mark - 1)->mark;
    return (Py_ssize_t)n;
}

static int Marks_init(Marks *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"capacity", NULL};
    Py_ssize_t capacity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &capacity)) return -1;
    if (self->young) {
        PyErr_SetString(PyExc_TypeError, "a memory is made once");
        return -1;
    }
    if (capacity < 2) {
        PyErr_Format(PyExc_ValueError, "capacity must be at least 2, got %zd", capacity);
        return -1;
    }
    if (capacity > (Py_ssize_t)1 << 32) {
        PyErr_Format(PyExc_ValueError, "capacity must be at most 2^32, got %zd", capacity);
        return -1;
    }
    size_t size = 4;
    self->half = (size_t)capacity / 2;
    while (size < self->half + self->half / 4 + 2) size *= 2; /* four fifths full at the most */
    self->mask = size - 1;
    self->young = calloc(size, sizeof(Remembered));
    self->old = calloc(size, sizeof(Remembered));
    if (self->young && self->old) return 0;
    PyErr_NoMemory();
    return -1;
}

static void Marks_dealloc(Marks *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    free(self->young);
    free(self->old);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef marks_methods[] = {
    {"remember", (PyCFunction)Marks_remember, METH_VARARGS, "remember(mark, place, /)\n--\n\nRemember where a decision lies."},
    {"place", (PyCFunction)Marks_place, METH_O, "place(mark, /)\n--\n\nReturn where a decision lies, None when it is not known."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot marks_slots[] = {
    {Py_tp_doc, "A bounded map from marks to places; the longest unused are forgotten first."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Marks_init},
    {Py_tp_dealloc, Marks_dealloc},
    {Py_tp_methods, marks_methods},
    {Py_mp_length, Marks_length},
    {0, NULL},
};

static PyType_Spec marks_spec = {"serving._fast_path.Marks", sizeof(Marks), 0, Py_TPFLAGS_DEFAULT, marks_slots};

#endif
