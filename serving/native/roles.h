/* A model as it is asked: by its own function, or by its boosters and an arithmetic; read from serving/course_models.py's Role. */

#ifndef TURNOUT_ROLES_H
#define TURNOUT_ROLES_H

#include "tariff.h"

/* How large a stream's vectors are. */
typedef struct {
    Py_ssize_t n_destinations, n_numbers, n_categories;
} Extent;

/* Some boosters of which the mean is taken. */
typedef struct {
    PyObject *tables; /* a tuple, NULL for none */
    Py_ssize_t n;
} Boosters;

/* A head: its boosters' mean, a destination's own boosters mixed in, an offset column in minutes, a calibration, bounds. */
typedef struct {
    Boosters pooled, *own; /* own by the code of a destination */
    Py_ssize_t n_own;
    double own_share;
    int32_t offset; /* a column, -1 for none */
    double low, high;
    int is_scaled;
    double slope, intercept;
    int32_t output; /* -1 for the logarithm of the latency */
} Head;

/* A part of the value: what it gains per unit, of which `per` of the output's make one. */
typedef struct {
    int32_t output;
    double weight, per;
} Term;

/* A quantile of the latency: how far it lies above the predicted logarithm. */
typedef struct {
    int32_t output;
    double above;
} Spread;

typedef struct {
    Text name;
    PyObject *score; /* None where the arithmetic is done here */
    Head *heads;
    Term *terms;
    Spread *spread;
    Py_ssize_t n_heads, n_terms, n_spread, n_levels;
    int32_t destination;  /* the column of the destination's code, -1 where none is needed */
    int32_t limit_output; /* the risk of exceeding a limit, -1 for none */
    double log_limit;
    const double *residuals, *levels; /* [n_levels] */
    Py_ssize_t n_told;    /* the value and the heads */
    Py_ssize_t n_outputs; /* those, and with prices the net values */
    Text *outputs;
    Names *codes;                    /* by category */
    const double *destination_codes; /* [n_destinations, n_categories] */
    double *predicted;               /* [n_outputs, n] of n candidates */
    Tariff tariff;
    double shares[MAX_CANDIDATES];
} Role;

static int read_boosters(Boosters *boosters, PyObject *tables) {
    *boosters = (Boosters){tables, PyTuple_Size(tables)};
    if (boosters->n > 0) return 0;
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a head must have boosters");
    return -1;
}

/* Whether an output is there beside the value, or none is meant. */
static int is_output(const Role *role, int32_t output) { return output >= -1 && output < role->n_told - 1; }

static int read_head(PyObject *kept, const Extent *of, Role *role, Head *head, PyObject *spec) {
    PyObject *pooled, *own;
    if (!PyArg_ParseTuple(spec, "O!O!diddpddi", &PyTuple_Type, &pooled, &PyTuple_Type, &own, &head->own_share, &head->offset,
                          &head->low, &head->high, &head->is_scaled, &head->slope, &head->intercept, &head->output)
        || read_boosters(&head->pooled, pooled) < 0)
        return -1;
    head->n_own = PyTuple_Size(own);
    if (!(head->own = allot(kept, head->n_own, sizeof(Boosters)))) return -1;
    for (Py_ssize_t code = 0; code < head->n_own; code++) {
        PyObject *tables = PyTuple_GetItem(own, code);
        if (tables != Py_None && read_boosters(&head->own[code], tables) < 0) return -1;
    }
    const int is_sound = head->offset >= -1 && head->offset < of->n_numbers && is_output(role, head->output)
                         && (!head->n_own || role->destination >= of->n_numbers);
    if (!is_sound) PyErr_SetString(PyExc_ValueError, "a head does not fit its columns and outputs");
    return is_sound ? 0 : -1;
}

/* The items of a tuple part; NULL with an error set. */
static PyObject *read_items(PyObject *kept, PyObject *spec, const char *name, Py_ssize_t *n) {
    PyObject *items = part(kept, spec, name);
    *n = items ? PyTuple_Size(items) : -1;
    return *n < 0 ? NULL : items;
}

static int read_terms(PyObject *kept, Role *role, PyObject *spec) {
    PyObject *terms = read_items(kept, spec, "terms", &role->n_terms), *spread;
    int is_sound = 1;
    if (!terms || !(role->terms = allot(kept, role->n_terms, sizeof(Term)))) return -1;
    for (Py_ssize_t i = 0; i < role->n_terms; i++) {
        Term *term = &role->terms[i];
        if (!PyArg_ParseTuple(PyTuple_GetItem(terms, i), "idd", &term->output, &term->weight, &term->per)) return -1;
        is_sound &= is_output(role, term->output) && term->output >= 0;
    }
    if (!(spread = read_items(kept, spec, "spread", &role->n_spread))
        || !(role->spread = allot(kept, role->n_spread, sizeof(Spread))))
        return -1;
    for (Py_ssize_t i = 0; i < role->n_spread; i++) {
        if (!PyArg_ParseTuple(PyTuple_GetItem(spread, i), "id", &role->spread[i].output, &role->spread[i].above)) return -1;
        is_sound &= is_output(role, role->spread[i].output) && role->spread[i].output >= 0;
    }
    if (!is_sound) PyErr_SetString(PyExc_ValueError, "what follows from heads does not fit the outputs");
    return is_sound ? 0 : -1;
}

static int read_limit(PyObject *kept, Role *role, PyObject *spec) {
    PyObject *limit = part(kept, spec, "limit");
    Text levels;
    if (!limit || !PyArg_ParseTuple(limit, "id", &role->limit_output, &role->log_limit)
        || read_text(kept, spec, "levels", &levels) < 0)
        return -1;
    role->n_levels = (Py_ssize_t)(levels.size / sizeof(double));
    if (!(role->levels = read_doubles(kept, spec, "levels", role->n_levels))
        || !(role->residuals = read_doubles(kept, spec, "residuals", role->n_levels)))
        return -1;
    if (is_output(role, role->limit_output) && (role->limit_output < 0 || role->n_levels > 0)) return 0;
    PyErr_SetString(PyExc_ValueError, "the limit does not fit the outputs");
    return -1;
}

static int read_arithmetic(PyObject *kept, const Extent *of, Role *role, PyObject *role_spec) {
    PyObject *spec = part(kept, role_spec, "arithmetic"), *heads;
    if (!spec || read_integer(kept, spec, "destination", &role->destination) < 0
        || !(heads = read_items(kept, spec, "heads", &role->n_heads))
        || !(role->heads = allot(kept, role->n_heads, sizeof(Head))))
        return -1;
    if (role->destination >= of->n_numbers + of->n_categories) {
        PyErr_SetString(PyExc_ValueError, "the destination is no column");
        return -1;
    }
    for (Py_ssize_t i = 0; i < role->n_heads; i++)
        if (read_head(kept, of, role, &role->heads[i], PyTuple_GetItem(heads, i)) < 0) return -1;
    return read_terms(kept, role, spec) < 0 || read_limit(kept, role, spec) < 0 ? -1 : 0;
}

static int read_codes(PyObject *kept, const Extent *of, Role *role, PyObject *spec) {
    PyObject *codes = part(kept, spec, "codes");
    const Py_ssize_t n = codes ? PyTuple_Size(codes) : -1;
    if (n < 0 || !(role->codes = allot(kept, n, sizeof(Names)))) return -1;
    if (n != of->n_categories) {
        PyErr_Format(PyExc_ValueError, "codes must number %zd, got %zd", of->n_categories, n);
        return -1;
    }
    for (Py_ssize_t c = 0; c < n; c++) {
        PyObject *values = PyTuple_GetItem(codes, c);
        const Py_ssize_t n_values = PyTuple_Size(values);
        if (n_values < 0 || allot_names(kept, &role->codes[c], n_values) < 0) return -1;
        for (Py_ssize_t i = 0; i < n_values; i++) {
            Text value;
            if (as_text(PyTuple_GetItem(values, i), &value) < 0) return -1;
            add_name(&role->codes[c], value, (int32_t)i);
        }
    }
    return 0;
}

static int read_role(PyObject *kept, const Extent *of, Role *role, PyObject *spec) {
    PyObject *tariff = part(kept, spec, "tariff");
    role->n_outputs = -1;
    if (!tariff || !(role->score = part(kept, spec, "score")) || read_text(kept, spec, "name", &role->name) < 0
        || !(role->outputs = read_texts(kept, spec, "outputs", &role->n_outputs)))
        return -1;
    role->n_told = role->n_outputs - (tariff != Py_None);
    if (role->n_told < 1) {
        PyErr_SetString(PyExc_ValueError, "outputs must begin with the value");
        return -1;
    }
    return (role->predicted = allot(kept, role->n_outputs * MAX_CANDIDATES, sizeof(double)))
                   && (role->destination_codes
                       = read_doubles(kept, spec, "destination_codes", of->n_destinations * of->n_categories))
                   && read_codes(kept, of, role, spec) == 0
                   && read_tariff(kept, &role->tariff, tariff, of->n_destinations, of->n_numbers, role->n_told) == 0
                   && (role->score != Py_None || read_arithmetic(kept, of, role, spec) == 0)
               ? 0
               : -1;
}

#endif
