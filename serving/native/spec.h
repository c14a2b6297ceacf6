/* Reading what Python says of a course: attributes, texts, float64s; and memory that lives as long as that does. */

#ifndef TURNOUT_SPEC_H
#define TURNOUT_SPEC_H

#include <Python.h>

#include "text.h"

/* The attribute of a spec, kept alive in a list; NULL with an error set. */
static PyObject *part(PyObject *kept, PyObject *spec, const char *name) {
    PyObject *value = PyObject_GetAttrString(spec, name);
    if (!value) return NULL;
    const int failed = PyList_Append(kept, value);
    Py_DECREF(value); /* the list holds it */
    return failed ? NULL : value;
}

static int as_text(PyObject *value, Text *text) {
    char *bytes;
    Py_ssize_t size;
    if (!value || PyBytes_AsStringAndSize(value, &bytes, &size) < 0) return -1;
    *text = (Text){bytes, (size_t)size};
    return 0;
}

static int read_text(PyObject *kept, PyObject *spec, const char *name, Text *text) {
    return as_text(part(kept, spec, name), text);
}

static int read_float(PyObject *kept, PyObject *spec, const char *name, double *number) {
    PyObject *value = part(kept, spec, name);
    if (!value) return -1;
    *number = PyFloat_AsDouble(value);
    return PyErr_Occurred() ? -1 : 0;
}

static int read_integer(PyObject *kept, PyObject *spec, const char *name, int *number) {
    PyObject *value = part(kept, spec, name);
    if (!value) return -1;
    *number = (int)PyLong_AsLong(value);
    return PyErr_Occurred() ? -1 : 0;
}

/* Zeroed memory for n items and one more, so that none is no failure; it lives as long as the list. */
static void *allot(PyObject *kept, Py_ssize_t n, size_t size) {
    const Py_ssize_t n_bytes = (n + 1) * (Py_ssize_t)size;
    PyObject *memory = PyBytes_FromStringAndSize(NULL, n_bytes);
    if (!memory) return NULL;
    const int failed = PyList_Append(kept, memory);
    Py_DECREF(memory);
    return failed ? NULL : memset(PyBytes_AsString(memory), 0, (size_t)n_bytes);
}

static int allot_names(PyObject *kept, Names *names, Py_ssize_t n) {
    const size_t size = count_entries((size_t)n);
    names->mask = size - 1;
    names->entries = allot(kept, (Py_ssize_t)size, sizeof(Entry));
    return names->entries ? 0 : -1;
}

/* The texts of a tuple of bytes; n is -1 for as many as there are, else how many there must be. */
static Text *read_texts(PyObject *kept, PyObject *spec, const char *name, Py_ssize_t *n) {
    PyObject *values = part(kept, spec, name);
    const Py_ssize_t size = values ? PyTuple_Size(values) : -1;
    if (size < 0) return NULL;
    if (*n >= 0 && *n != size) {
        PyErr_Format(PyExc_ValueError, "%s must number %zd, got %zd", name, *n, size);
        return NULL;
    }
    Text *texts = allot(kept, size, sizeof(Text));
    *n = size;
    for (Py_ssize_t i = 0; texts && i < size; i++)
        if (as_text(PyTuple_GetItem(values, i), &texts[i]) < 0) return NULL;
    return texts;
}

static int name_texts(PyObject *kept, Names *names, const Text *texts, Py_ssize_t n) {
    if (allot_names(kept, names, n) < 0) return -1;
    for (Py_ssize_t i = 0; i < n; i++) add_name(names, texts[i], (int32_t)i);
    return 0;
}

/* The float64s of a bytes object, of which there must be n. */
static const double *read_doubles(PyObject *kept, PyObject *spec, const char *name, Py_ssize_t n) {
    Text bytes;
    if (read_text(kept, spec, name, &bytes) < 0) return NULL;
    if (bytes.size != (size_t)n * sizeof(double) || (uintptr_t)bytes.at % sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "%s must be %zd aligned float64s, got %zu bytes", name, n, bytes.size);
        return NULL;
    }
    return (const double *)bytes.at;
}

#endif
