/* Scoring by leaf masks: the C form of models/engine.py, on the tables of models/leaf_masks.py.

   For every column of a row one table row of masks is found by the column's value; the masks of all columns are ANDed,
   tree by tree, and the lowest bit left names the leaf. Leaves are added in the order of the trees, so that sums are
   those of LightGBM to the last bit. What is the same in all rows of a call is found and ANDed once; what differs between
   them, a destination's side of it, is remembered with its AND for as long as it does not change.

   Nothing here trusts a table: the constructor checks every index that scoring follows, and keeps its own copy of those;
   the masks and leaf values may lie in a mapped file, since no value in them can lead a read outside of them. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "leaf_memory.h"

static double convert(const Masks *self, double raw) {
    raw /= self->divisor;
    switch (self->link) {
    case SIGMOID: return 1.0 / (1.0 + exp(-self->parameter * raw));
    case EXPONENTIAL: return exp(raw);
    case SQUARE: return (double)((raw > 0) - (raw < 0)) * raw * raw;
    case SOFTPLUS: return log1p(exp(raw));
    default: return raw;
    }
}

static void score_rows(const Masks *self, const double *matrix, Py_ssize_t n, double *out, Found *found, void *left) {
    for (Py_ssize_t start = 0; start < n; start += CHUNK) {
        Py_ssize_t n_chunk = n - start < CHUNK ? n - start : CHUNK;
        find_rows(self, matrix + start * self->n_features, n_chunk, found);
        if (self->width == 32) add_leaves_32(self, found, n_chunk, left, out + start);
        else add_leaves_64(self, found, n_chunk, left, out + start);
    }
}

/* The rows of one event; without memory they are scored all the same. */
static void score_event(Masks *self, const double *matrix, Py_ssize_t n, double *out, Found *found, void *left) {
    Memory *memory = &self->memory;
    const int has_memory = alloc_memory(self);
    if (has_memory) learn_own(self, memory, matrix, n);
    if (!has_memory || memory->n_own > MAX_OWN) score_rows(self, matrix, n, out, found, left);
    else if (self->width == 32) add_remembered_32(self, memory, matrix, n, found, left, out);
    else add_remembered_64(self, memory, matrix, n, found, left, out);
}

/* Score n rows; -1 with an error set where memory fails. */
static int score_matrix(Masks *self, const double *matrix, Py_ssize_t n, double *out, int raw_score) {
    const size_t n_found = (size_t)(self->n_columns * (CHUNK + 1));
    int64_t *scratch = malloc((n_found + (CHUNK + 1) * (size_t)self->n_trees) * sizeof(int64_t));
    if (!scratch) {
        PyErr_NoMemory();
        return -1;
    }
    Found found = {0, 0, scratch, scratch + self->n_columns};
    void *left = scratch + n_found;
    if (n > RELEASE_ROWS) {
        Py_BEGIN_ALLOW_THREADS
        score_rows(self, matrix, n, out, &found, left);
        Py_END_ALLOW_THREADS
    } else if (n > CHUNK) {
        score_rows(self, matrix, n, out, &found, left);
    } else if (n) {
        score_event(self, matrix, n, out, &found, left);
    }
    if (!raw_score)
        for (Py_ssize_t i = 0; i < n; i++) out[i] = convert(self, out[i]);
    free(scratch);
    return 0;
}

/* For callers in C, found by the name of its capsule: score rows of so many features, as Masks.score does. Returns -1 with an error
   set where it cannot. */
static int score_directly(PyObject *masks, const double *matrix, Py_ssize_t n, Py_ssize_t n_features, double *out) {
    Masks *self = (Masks *)masks;
    if (n_features != self->n_features) {
        PyErr_Format(PyExc_ValueError, "rows must have %zd features, got %zd", self->n_features, n_features);
        return -1;
    }
    return score_matrix(self, matrix, n, out, 0);
}

static struct {
    PyTypeObject *type; /* of what may be scored */
    int (*score)(PyObject *masks, const double *matrix, Py_ssize_t n, Py_ssize_t n_features, double *out);
} direct = {NULL, score_directly};

static PyObject *Masks_score(Masks *self, PyObject *const *args, Py_ssize_t n_args) {
    if (n_args != 3) return PyErr_Format(PyExc_TypeError, "score takes matrix, out and raw_score, got %zd", n_args);
    Py_buffer matrix, out;
    PyObject *result = NULL;
    if (PyObject_GetBuffer(args[0], &matrix, PyBUF_SIMPLE) < 0) return NULL;
    if (PyObject_GetBuffer(args[1], &out, PyBUF_WRITABLE) < 0) goto release_matrix;
    const int raw_score = PyObject_IsTrue(args[2]);
    const Py_ssize_t n = out.len / (Py_ssize_t)sizeof(double);
    if (raw_score < 0) goto release_out;
    if (out.len % (Py_ssize_t)sizeof(double) || matrix.len != out.len * self->n_features) {
        PyErr_Format(PyExc_ValueError, "%zd rows of %zd features take %zd bytes, got %zd", n, self->n_features,
                     out.len * self->n_features, matrix.len);
        goto release_out;
    }
    if (score_matrix(self, matrix.buf, n, out.buf, raw_score) < 0) goto release_out;
    result = Py_None;
    Py_INCREF(result);
release_out:
    PyBuffer_Release(&out);
release_matrix:
    PyBuffer_Release(&matrix);
    return result;
}

static int Masks_init(Masks *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"n_features", "n_trees", "width", "link", "parameter", "divisor", "columns",
                            "thresholds", "lookup", "values", "masks", NULL};
    PyObject *columns, *thresholds, *lookup, *values, *masks;
    Py_ssize_t n_fields, n_thresholds, n_lookup;
    if (self->columns) {
        PyErr_SetString(PyExc_TypeError, "tables are made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nniiddOOOOO", names, &self->n_features, &self->n_trees, &self->width,
                                     &self->link, &self->parameter, &self->divisor, &columns, &thresholds, &lookup, &values,
                                     &masks))
        return -1;
    if (!(self->columns = copy_items(columns, sizeof(Column), &n_fields))
        || !(self->thresholds = copy_items(thresholds, sizeof(double), &n_thresholds))
        || !(self->lookup = copy_items(lookup, sizeof(int32_t), &n_lookup))
        || PyObject_GetBuffer(values, &self->values, PyBUF_SIMPLE) < 0
        || PyObject_GetBuffer(masks, &self->masks, PyBUF_SIMPLE) < 0)
        return -1;
    self->n_columns = n_fields;
    return check_sizes(self) < 0 ? -1 : check_columns(self, n_thresholds, n_lookup);
}

static void Masks_dealloc(Masks *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyBuffer_Release(&self->values);
    PyBuffer_Release(&self->masks);
    free(self->columns);
    free(self->thresholds);
    free(self->lookup);
    free(self->memory.is_own);
    free(self->memory.own);
    free(self->memory.keys);
    free(self->memory.masks);
    free(self->memory.stamps);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* apply(name, values): what models/elementary.py gives, in place. */
static PyObject *masks_apply(PyObject *module, PyObject *args) {
    static const struct {
        const char *name;
        double (*function)(double);
    } known[] = {{"log", log}, {"exp", exp}, {"expm1", expm1}, {"tanh", tanh}};
    const char *name;
    Py_buffer values;
    double (*function)(double) = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "sw*", &name, &values)) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(name, known[i].name)) function = known[i].function;
    const Py_ssize_t n = values.len / (Py_ssize_t)sizeof(double);
    if (function && values.len % (Py_ssize_t)sizeof(double) == 0)
        for (Py_ssize_t i = 0; i < n; i++) ((double *)values.buf)[i] = function(((double *)values.buf)[i]);
    else
        PyErr_Format(PyExc_ValueError, "%s cannot be applied to %zd bytes", name, values.len);
    PyBuffer_Release(&values);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"apply", masks_apply, METH_VARARGS, "apply(name, values, /)\n--\n\nApply log, exp, expm1 or tanh to float64s in place."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef methods[] = {
    {"score", (PyCFunction)(void (*)(void))Masks_score, METH_FASTCALL,
     "score(matrix, out, raw_score, /)\n--\n\nFill out, float64[n], from matrix, float64[n, n_features]; both C-contiguous."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Leaf-mask tables, checked once, scored without further checks."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, Masks_init},
    {Py_tp_dealloc, Masks_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"models._masks.Masks", sizeof(Masks), 0, Py_TPFLAGS_DEFAULT, slots};

static int execute(PyObject *module) {
    PyObject *type = PyType_FromSpec(&spec);
    PyObject *capsule = PyCapsule_New(&direct, "models._masks.direct", NULL);
    int failed = !type || !capsule || PyModule_AddObjectRef(module, "Masks", type) < 0
                 || PyModule_AddObjectRef(module, "direct", capsule) < 0;
    direct.type = (PyTypeObject *)type;
    Py_XDECREF(capsule);
    return failed ? -1 : 0; /* the type is the capsule's as well, for good */
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_masks", "Scoring by leaf masks.", 0, functions, module_slots,
                             NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__masks(void) { return PyModuleDef_Init(&module); }
