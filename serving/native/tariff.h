/* What a priced model's candidates would use of what its stream limits, and what follows for their values and the debt: the
   arithmetic of models/meter.py, tariff.py and budget.py, operation by operation. */

#ifndef TURNOUT_TARIFF_H
#define TURNOUT_TARIFF_H

#include "policy.h"
#include "spec.h"

#define MAX_PACE 3.0 /* models/budget.py's */

/* Who tells what a candidate would use; the order is that of course_models.TELLERS. */
typedef enum { BY_DESTINATION, BY_NUMBER, BY_OUTPUT } Teller;

/* A limit and its price per unit. `extra` is what more it costs once it is owed, `most` is for use that is not told, `room` are the
   events' limits whose debt multiplies the price by e, `bound` is the largest debt. */
typedef struct {
    Teller teller;
    int32_t place; /* of the destination, the number or the output */
    double price, extra, most, at_most, room, bound;
} PricedLimit;

typedef struct {
    Py_ssize_t n; /* 0 for a model without prices */
    PricedLimit *limits;
    double temperature;
    double *debt;   /* [n], Python's, changed when a request is kept */
    double *owed;   /* [n], the same while a request is decided; shared by all roles of one model, as the next is */
    double *opened; /* [n], what was owed when it began */
    double *use;    /* [n, MAX_CANDIDATES] */
} Tariff;

static int read_limits(Tariff *tariff, PyObject *limits, Py_ssize_t n_destinations, Py_ssize_t n_numbers, Py_ssize_t n_told) {
    const Py_ssize_t n_places[] = {n_destinations, n_numbers, n_told};
    for (Py_ssize_t j = 0; j < tariff->n; j++) {
        PricedLimit *limit = &tariff->limits[j];
        int teller;
        if (!PyArg_ParseTuple(PyTuple_GetItem(limits, j), "iidddddd", &teller, &limit->place, &limit->price, &limit->extra,
                              &limit->most, &limit->at_most, &limit->room, &limit->bound))
            return -1;
        if (teller < BY_DESTINATION || teller > BY_OUTPUT || limit->place < 0 || limit->place >= n_places[teller]) {
            PyErr_SetString(PyExc_ValueError, "a limit must be told by a destination, a number or an output");
            return -1;
        }
        limit->teller = (Teller)teller;
    }
    return 0;
}

/* Find where Python keeps the debt; its owner is kept, so that it stays there. */
static int read_debt(PyObject *kept, Tariff *tariff, PyObject *spec) {
    PyObject *debt = part(kept, spec, "debt");
    Py_buffer view;
    if (!debt || PyObject_GetBuffer(debt, &view, PyBUF_WRITABLE) < 0) return -1;
    const int is_sound = view.len == tariff->n * (Py_ssize_t)sizeof(double) && (uintptr_t)view.buf % sizeof(double) == 0;
    tariff->debt = view.buf;
    PyBuffer_Release(&view);
    if (!is_sound) PyErr_Format(PyExc_ValueError, "debt must be %zd aligned float64s", tariff->n);
    return is_sound ? 0 : -1;
}

/* Read a model's tariff; None is for one without prices. */
static int read_tariff(PyObject *kept, Tariff *tariff, PyObject *spec, Py_ssize_t n_destinations, Py_ssize_t n_numbers,
                       Py_ssize_t n_told) {
    if (spec == Py_None) return 0;
    PyObject *limits = part(kept, spec, "limits");
    tariff->n = limits ? PyTuple_Size(limits) : -1;
    if (tariff->n < 0) return -1;
    return (tariff->limits = allot(kept, tariff->n, sizeof(PricedLimit)))
                   && (tariff->owed = allot(kept, tariff->n, sizeof(double)))
                   && (tariff->opened = allot(kept, tariff->n, sizeof(double)))
                   && (tariff->use = allot(kept, tariff->n * MAX_CANDIDATES, sizeof(double)))
                   && read_float(kept, spec, "temperature", &tariff->temperature) == 0
                   && read_limits(tariff, limits, n_destinations, n_numbers, n_told) == 0 && read_debt(kept, tariff, spec) == 0
               ? 0
               : -1;
}

/* The price that pays back what is owed. */
static double pace(const PricedLimit *limit, double owed) {
    double events = limit->room > 0.0 ? owed / limit->room : 0.0;
    if (events > MAX_PACE) events = MAX_PACE;
    if (events < -MAX_PACE) events = -MAX_PACE;
    return limit->price * exp(events) + limit->extra * expm1(events > 0.0 ? events : 0.0);
}

/* The values less what their use costs, float64[n]; both of all candidates. */
static void net(const Tariff *tariff, const double *values, Py_ssize_t n, double *out) {
    memcpy(out, values, (size_t)n * sizeof(double));
    for (Py_ssize_t j = 0; j < tariff->n; j++) {
        const double price = pace(&tariff->limits[j], tariff->owed[j]), *use = tariff->use + j * MAX_CANDIDATES;
        for (Py_ssize_t i = 0; i < n; i++) out[i] = out[i] - price * use[i];
    }
}

/* The priced choice, which draws between candidates that tie: exp(net / temperature) of the eligible, normalised. */
static void soften(const Field *field, const double *values, double temperature, double *shares) {
    double weights[MAX_CANDIDATES];
    const double highest = values[find_best(field, values)];
    Py_ssize_t k = 0;
    for (Py_ssize_t i = 0; i < field->n; i++)
        if (field->eligible[i]) weights[k++] = exp((values[i] - highest) / temperature);
    const double sum = sum_after_first(weights, k);
    for (Py_ssize_t i = 0, place = 0; i < field->n; i++) shares[i] = field->eligible[i] ? weights[place++] / sum : 0.0;
}

static double bounded(const PricedLimit *limit, double owed) {
    return owed < -limit->bound ? -limit->bound : owed > limit->bound ? limit->bound : owed;
}

/* Charge what the chosen candidate uses. */
static void charge(Tariff *tariff, Py_ssize_t chosen) {
    for (Py_ssize_t j = 0; j < tariff->n; j++) {
        const PricedLimit *limit = &tariff->limits[j];
        tariff->owed[j] = bounded(limit, tariff->owed[j] + tariff->use[j * MAX_CANDIDATES + chosen] - limit->at_most);
    }
}

/* Begin with the debt as Python has it. */
static void open_debt(Tariff *tariff) {
    for (Py_ssize_t j = 0; j < tariff->n; j++) tariff->owed[j] = tariff->opened[j] = tariff->debt[j];
}

/* Let what was charged be owed, on top of what Python charged meanwhile: a model may have led to a decision of the whole path.
   A second time changes nothing. */
static void close_debt(Tariff *tariff) {
    for (Py_ssize_t j = 0; j < tariff->n; j++) {
        const double meanwhile = tariff->debt[j] - tariff->opened[j];
        if (meanwhile != 0.0) tariff->owed[j] = bounded(&tariff->limits[j], tariff->owed[j] + meanwhile);
        tariff->debt[j] = tariff->opened[j] = tariff->owed[j];
    }
}

#endif
