/* Lines that wait to be written to the spool: serving/held.py's, in one piece of memory. */

#ifndef TURNOUT_HELD_H
#define TURNOUT_HELD_H

#include <Python.h>

#include "spec.h"

typedef struct {
    PyObject_HEAD
    Output lines;
    size_t *ends; /* of each line, in bytes */
    size_t n, capacity;
    uint64_t place; /* of the first */
    size_t room;    /* bytes that may be held in all */
} HeldLines;

/* Make room in memory for some more lines; 0 where there is none. */
static int reserve_lines(HeldLines *self, size_t n_lines, size_t n_bytes) {
    if (self->n + n_lines > self->capacity) {
        const size_t capacity = 2 * (self->n + n_lines);
        size_t *ends = realloc(self->ends, capacity * sizeof(size_t));
        if (!ends) return 0;
        self->ends = ends;
        self->capacity = capacity;
    }
    const int is_there = reserve(&self->lines, n_bytes) != NULL;
    self->lines.failed = 0;
    return is_there;
}

/* Hold a line for which memory is reserved, and return its place. */
static uint64_t hold_line(HeldLines *self, const char *bytes, size_t size) {
    const uint64_t place = self->place + self->lines.size;
    put(&self->lines, bytes, size);
    self->ends[self->n++] = self->lines.size;
    return place;
}

static size_t begin_of(const HeldLines *self, size_t line) { return line ? self->ends[line - 1] : 0; }

static PyObject *HeldLines_append(HeldLines *self, PyObject *line) {
    Text text;
    if (as_text(line, &text) < 0) return NULL;
    if (!reserve_lines(self, 1, text.size)) return PyErr_NoMemory();
    return PyLong_FromUnsignedLongLong(hold_line(self, text.at, text.size));
}

static PyObject *HeldLines_read(HeldLines *self, PyObject *number) {
    const uint64_t offset = PyLong_AsUnsignedLongLong(number) - self->place;
    size_t low = 0, high = self->n;
    if (PyErr_Occurred()) return NULL;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (begin_of(self, middle) < offset) low = middle + 1;
        else high = middle;
    }
    if (low == self->n || begin_of(self, low) != offset) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(self->lines.bytes + offset, (Py_ssize_t)(self->ends[low] - offset));
}

static PyObject *HeldLines_joined(HeldLines *self, PyObject *unused) {
    (void)unused;
    return PyBytes_FromStringAndSize(self->lines.bytes, (Py_ssize_t)self->lines.size);
}

static PyObject *HeldLines_items(HeldLines *self, PyObject *unused) {
    (void)unused;
    PyObject *items = PyList_New(0);
    for (size_t i = 0; items && i < self->n; i++) {
        const size_t begin = begin_of(self, i);
        PyObject *item = Py_BuildValue("(Kn)", (unsigned long long)(self->place + begin), (Py_ssize_t)(self->ends[i] - begin));
        if (!item || PyList_Append(items, item) < 0) Py_CLEAR(items);
        Py_XDECREF(item);
    }
    return items;
}

static PyObject *HeldLines_cut(HeldLines *self, PyObject *number) {
    const size_t n = PyLong_AsSize_t(number);
    if (PyErr_Occurred()) return NULL;
    if (n < self->n) {
        self->lines.size = begin_of(self, n);
        self->n = n;
    }
    if (!self->n) trim(&self->lines);
    Py_RETURN_NONE;
}

static PyObject *HeldLines_settle(HeldLines *self, PyObject *args) {
    unsigned long long place;
    Py_ssize_t room;
    if (!PyArg_ParseTuple(args, "Kn", &place, &room)) return NULL;
    if (!self->n) self->place = place;
    self->room = room > 0 ? (size_t)room : 0;
    Py_RETURN_NONE;
}

static PyObject *HeldLines_first(HeldLines *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->place);
}

static PyObject *HeldLines_n_bytes(HeldLines *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->lines.size);
}

static PyObject *HeldLines_room(HeldLines *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->room);
}

static Py_ssize_t HeldLines_length(PyObject *self) { return (Py_ssize_t)((HeldLines *)self)->n; }

static void HeldLines_dealloc(HeldLines *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    free(self->lines.bytes);
    free(self->ends);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef held_methods[] = {
    {"append", (PyCFunction)HeldLines_append, METH_O, "append(line, /)\n--\n\nHold a line and return its place."},
    {"read", (PyCFunction)HeldLines_read, METH_O, "read(place, /)\n--\n\nReturn the line at a place, None where none begins there."},
    {"joined", (PyCFunction)HeldLines_joined, METH_NOARGS, "joined()\n--\n\nReturn all lines as they are to be written."},
    {"items", (PyCFunction)HeldLines_items, METH_NOARGS, "items()\n--\n\nReturn place and size of every line."},
    {"cut", (PyCFunction)HeldLines_cut, METH_O, "cut(n, /)\n--\n\nForget all lines but the first n."},
    {"settle", (PyCFunction)HeldLines_settle, METH_VARARGS,
     "settle(place, room, /)\n--\n\nTell where the first line will lie, if none is held, and how many bytes may be held."},
    {"first", (PyCFunction)HeldLines_first, METH_NOARGS, "first()\n--\n\nReturn the place of the first line, held or to come."},
    {"n_bytes", (PyCFunction)HeldLines_n_bytes, METH_NOARGS, "n_bytes()\n--\n\nReturn how many bytes are held."},
    {"room", (PyCFunction)HeldLines_room, METH_NOARGS, "room()\n--\n\nReturn how many bytes may be held in all."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot held_slots[] = {
    {Py_tp_doc, "Lines that wait to be written, each with the place it will have."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, HeldLines_dealloc},
    {Py_tp_methods, held_methods},
    {Py_mp_length, HeldLines_length},
    {0, NULL},
};

static PyType_Spec held_spec = {"serving._fast_path.HeldLines", sizeof(HeldLines), 0, Py_TPFLAGS_DEFAULT, held_slots};

#endif
