/* What is not a decision: how memory is given back, and for the tests what the parts that stand on their own do. */

#ifndef TURNOUT_PARTS_H
#define TURNOUT_PARTS_H

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "blake2b.h"
#include "crc32.h"
#include "instants.h"
#include "spec.h"

/* Let the C library give back what a large request took, and keep one heap for all threads: by default it learns from the first
   such request to keep as much for good. */
static PyObject *fast_path_keep_little(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 17);
    mallopt(M_TRIM_THRESHOLD, 1 << 17);
    mallopt(M_ARENA_MAX, 1);
#endif
    Py_RETURN_NONE;
}

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

static PyObject *fast_path_moment(PyObject *module, PyObject *number) {
    (void)module;
    char text[MAX_INSTANT_TEXT];
    const long long us = PyLong_AsLongLong(number);
    if (PyErr_Occurred()) return NULL;
    return PyBytes_FromStringAndSize(text, (Py_ssize_t)write_instant(us, text));
}

static PyMethodDef parts_methods[] = {
    {"keep_little", fast_path_keep_little, METH_NOARGS, "keep_little()\n--\n\nLet the C library keep little memory."},
    {"digits", fast_path_digits, METH_O, "digits(value, /)\n--\n\nReturn a finite number as JSON."},
    {"number", fast_path_number, METH_O, "number(text, /)\n--\n\nReturn the number that JSON text is, None for none."},
    {"instant", fast_path_instant, METH_O, "instant(text, /)\n--\n\nReturn the microseconds from 1970 to an instant, or None."},
    {"moment", fast_path_moment, METH_O, "moment(us, /)\n--\n\nReturn an instant as JSON, from its microseconds from 1970."},
    {"blake2b", fast_path_hash, METH_VARARGS, "blake2b(data, person, /)\n--\n\nReturn eight bytes of BLAKE2b as a number."},
    {"crc32", fast_path_crc32, METH_O, "crc32(data, /)\n--\n\nReturn the CRC-32 of bytes."},
    {NULL, NULL, 0, NULL},
};

#endif
