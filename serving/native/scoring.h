/* What the models of a course say of a question's candidates. */

#ifndef TURNOUT_SCORING_H
#define TURNOUT_SCORING_H

#include "features.h"

/* What models/masks.c offers callers in C; no function where it is not there. */
static struct {
    PyTypeObject *type;
    int (*score)(PyObject *masks, const double *matrix, Py_ssize_t n, Py_ssize_t n_features, double *out);
} direct;

static void find_direct(void) {
    PyObject *module = PyImport_ImportModule("models._masks");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "direct") : NULL;
    const void *found = capsule ? PyCapsule_GetPointer(capsule, "models._masks.direct") : NULL;
    if (found) memcpy(&direct, found, sizeof direct);
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    PyErr_Clear();
}

/* Call a model's own function with the matrix; it answers float64[n_outputs, n]. */
static int ask_model(Desk *desk, Role *role) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    PyObject *matrix
        = PyMemoryView_FromMemory((char *)desk->matrix, n * width * (Py_ssize_t)sizeof(double), PyBUF_READ);
    PyObject *told = matrix ? PyObject_CallFunction(role->score, "On", matrix, n) : NULL;
    Py_XDECREF(matrix);
    Py_buffer view;
    if (!told || PyObject_GetBuffer(told, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(told);
        return -1;
    }
    const int is_sound = view.len == n * role->n_outputs * (Py_ssize_t)sizeof(double);
    if (is_sound) memcpy(role->predicted, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_DECREF(told);
    return is_sound;
}

/* One booster's predictions for all candidates. */
static int ask_tables(Desk *desk, PyObject *tables, double *out) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    if (direct.score && Py_TYPE(tables) == direct.type)
        return direct.score(tables, desk->matrix, n, width, out) < 0 ? -1 : 1;
    PyObject *matrix
        = PyMemoryView_FromMemory((char *)desk->matrix, n * width * (Py_ssize_t)sizeof(double), PyBUF_READ);
    PyObject *predicted = PyMemoryView_FromMemory((char *)out, n * (Py_ssize_t)sizeof(double), PyBUF_WRITE);
    PyObject *done = matrix && predicted ? PyObject_CallMethod(tables, "score", "OOO", matrix, predicted, Py_False) : NULL;
    const int failed = !done;
    Py_XDECREF(matrix);
    Py_XDECREF(predicted);
    Py_XDECREF(done);
    return failed ? -1 : 1;
}

/* The arithmetic of models/router.py for heads that have nothing but boosters, an offset and bounds. */
static int ask_heads(Desk *desk, Role *role) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    double *value = role->predicted, one[MAX_CANDIDATES];
    for (Py_ssize_t i = 0; i < n; i++) value[i] = 0.0;
    for (Py_ssize_t h = 0; h < role->n_outputs - 1; h++) {
        const Head *head = &role->heads[h];
        double *out = role->predicted + (h + 1) * n;
        if (ask_tables(desk, PyTuple_GetItem(head->tables, 0), out) < 0) return -1;
        for (Py_ssize_t t = 1; t < head->n_tables; t++) {
            if (ask_tables(desk, PyTuple_GetItem(head->tables, t), one) < 0) return -1;
            for (Py_ssize_t i = 0; i < n; i++) out[i] += one[i];
        }
        for (Py_ssize_t i = 0; i < n; i++) {
            if (head->n_tables > 1) out[i] /= (double)head->n_tables;
            if (head->offset >= 0) {
                const double promised = desk->matrix[i * width + head->offset];
                out[i] += (isnan(promised) ? 0.0 : promised) * 60000.0;
            }
            if (out[i] < head->low) out[i] = head->low;
            if (out[i] > head->high) out[i] = head->high;
            if (head->weight > 0.0) value[i] += head->weight * out[i];
            if (head->weight < 0.0) value[i] -= -head->weight * out[i] / head->per;
        }
    }
    return 1;
}

static int score_role(Desk *desk, Role *role) {
    const Course *course = desk->asked.course;
    encode_categories(desk, role);
    const int told = role->heads ? ask_heads(desk, role) : ask_model(desk, role);
    if (told != 1) return told;
    for (Py_ssize_t i = 0; i < desk->asked.field.n * role->n_outputs; i++)
        if (!isfinite(role->predicted[i])) return 0;
    explore(&desk->asked.field, role->predicted, &course->exploration, role->shares);
    return 1;
}

#endif
