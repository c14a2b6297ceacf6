/* The tables of one booster as C holds them, and the checks that no index in them leads outside. */

#ifndef TURNOUT_LEAF_TABLES_H
#define TURNOUT_LEAF_TABLES_H

#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>


#define BLOCK 16 /* tables are padded to a multiple of so many trees */
#define CHUNK 32 /* rows that share what is the same in all of them */
#define MAX_OWN 64 /* columns of a destination's side; with more, nothing is remembered */
#define LANES 4 /* rows whose leaves are added side by side */
#define SLOTS 128 /* destinations whose side is remembered; a power of two, more than CHUNK */
#define SEASON 4096 /* calls after which it is learned anew which columns are the destinations' */
#define RELEASE_ROWS 256 /* with more, other threads may run meanwhile */

static const double ZERO_THRESHOLD = 1e-35f; /* LightGBM's kZeroThreshold: what is no larger is zero */

enum { NUMBER = 0, CATEGORY = 1 };
enum { IDENTITY = 0, SIGMOID = 1, EXPONENTIAL = 2, SQUARE = 3, SOFTPLUS = 4 };

typedef struct {
    int64_t feature, kind, start, count, first;
} Column;

/* The side of some destinations: the values of the columns in which rows differ, and the AND of their masks. It is used
   and changed only while the interpreter's lock is held. */
typedef struct {
    uint8_t *is_own;    /* by column: whether it differed between the rows of a call this season */
    Py_ssize_t *own;    /* those columns */
    Py_ssize_t n_own;
    double *keys;       /* [SLOTS, n_columns] */
    void *masks;        /* [SLOTS, n_trees] */
    uint64_t *stamps;   /* by slot: the call that used it last, 0 for none */
    uint64_t call;
} Memory;

typedef struct {
    PyObject_HEAD
    Memory memory;
    Py_buffer values, masks; /* float64[n_trees, width], uint[n_rows, n_trees] */
    Column *columns;
    double *thresholds;
    int32_t *lookup;
    Py_ssize_t n_features, n_trees, n_columns, n_rows;
    int width, link;
    double parameter, divisor;
} Masks;

/* A private copy of a buffer of n items, or NULL with an error set. */
static void *copy_items(PyObject *object, size_t item, Py_ssize_t *n) {
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0) return NULL;
    void *copy = malloc((size_t)view.len + 1);
    if (copy) memcpy(copy, view.buf, (size_t)view.len);
    else PyErr_NoMemory();
    *n = view.len / (Py_ssize_t)item;
    PyBuffer_Release(&view);
    return copy;
}

static int check_columns(const Masks *self, Py_ssize_t n_thresholds, Py_ssize_t n_lookup) {
    for (Py_ssize_t c = 0; c < self->n_columns; c++) {
        const Column column = self->columns[c];
        const int is_number = column.kind == NUMBER;
        const Py_ssize_t n_items = is_number ? n_thresholds : n_lookup;
        int64_t n_rows = column.count + 3;
        int is_sound = (is_number || column.kind == CATEGORY) && column.feature >= 0 && column.feature < self->n_features
                       && column.count >= is_number && column.count <= n_items && column.start >= 0
                       && column.start <= n_items - column.count && column.first >= 0;
        if (is_sound && !is_number) {
            n_rows = 1;
            for (int64_t i = 0; i < column.count; i++) {
                const int32_t row = self->lookup[column.start + i];
                if (row < 0) is_sound = 0;
                if (row >= n_rows) n_rows = (int64_t)row + 1;
            }
        }
        if (!is_sound || n_rows > self->n_rows || column.first > self->n_rows - n_rows) {
            PyErr_Format(PyExc_ValueError, "column %zd leads outside of the tables", c);
            return -1;
        }
    }
    return 0;
}

static int check_sizes(Masks *self) {
    const Py_ssize_t mask_bytes = self->width / 8, row_bytes = self->n_trees * mask_bytes;
    if ((self->width != 32 && self->width != 64) || self->n_trees <= 0 || self->n_trees % BLOCK || self->n_features < 1
        || self->n_trees > PY_SSIZE_T_MAX / 1024 || self->n_features > PY_SSIZE_T_MAX / 1024) {
        PyErr_Format(PyExc_ValueError, "unusable tables: width %d, %zd trees, %zd features", self->width, self->n_trees,
                     self->n_features);
        return -1;
    }
    if ((uintptr_t)self->values.buf % sizeof(double) || (uintptr_t)self->masks.buf % sizeof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "leaf values and masks must be aligned");
        return -1;
    }
    if (self->values.len != self->n_trees * self->width * (Py_ssize_t)sizeof(double) || self->masks.len % row_bytes) {
        PyErr_SetString(PyExc_ValueError, "leaf values or masks are not of the size that the trees ask for");
        return -1;
    }
    self->n_rows = self->masks.len / row_bytes;
    return 0;
}

#endif
