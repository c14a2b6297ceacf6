/* What the models of a course say of a question's candidates. */

#ifndef TURNOUT_SCORING_H
#define TURNOUT_SCORING_H

#include "features.h"

/* What models/native/masks.c offers callers in C; no function where it is not there. */
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
    const int is_sound = view.len == n * role->n_told * (Py_ssize_t)sizeof(double);
    if (is_sound) memcpy(role->predicted, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_DECREF(told);
    return is_sound;
}

/* One booster's predictions for n rows of the matrix. */
static int ask_tables(Desk *desk, PyObject *tables, Py_ssize_t first, Py_ssize_t n, double *out) {
    const Course *course = desk->asked.course;
    const Py_ssize_t width = course->n_numbers + course->n_categories;
    const double *rows = desk->matrix + first * width;
    if (direct.score && Py_TYPE(tables) == direct.type) return direct.score(tables, rows, n, width, out) < 0 ? -1 : 1;
    PyObject *matrix = PyMemoryView_FromMemory((char *)rows, n * width * (Py_ssize_t)sizeof(double), PyBUF_READ);
    PyObject *predicted = PyMemoryView_FromMemory((char *)out, n * (Py_ssize_t)sizeof(double), PyBUF_WRITE);
    PyObject *done = matrix && predicted ? PyObject_CallMethod(tables, "score", "OOO", matrix, predicted, Py_False) : NULL;
    const int failed = !done;
    Py_XDECREF(matrix);
    Py_XDECREF(predicted);
    Py_XDECREF(done);
    return failed ? -1 : 1;
}

/* The mean of some boosters for n rows. */
static int ask_boosters(Desk *desk, const Boosters *boosters, Py_ssize_t first, Py_ssize_t n, double *out) {
    double one[MAX_CANDIDATES];
    if (ask_tables(desk, PyTuple_GetItem(boosters->tables, 0), first, n, out) < 0) return -1;
    for (Py_ssize_t t = 1; t < boosters->n; t++) {
        if (ask_tables(desk, PyTuple_GetItem(boosters->tables, t), first, n, one) < 0) return -1;
        for (Py_ssize_t i = 0; i < n; i++) out[i] += one[i];
    }
    for (Py_ssize_t i = 0; boosters->n > 1 && i < n; i++) out[i] /= (double)boosters->n;
    return 1;
}

/* Mix in what a destination's own boosters say of it. */
static int mix_own(Desk *desk, const Role *role, const Head *head, double *out) {
    const Course *course = desk->asked.course;
    for (Py_ssize_t i = 0; i < desk->asked.field.n; i++) {
        const double code = desk->matrix[i * (course->n_numbers + course->n_categories) + role->destination];
        if (!(code >= 0.0 && code < (double)head->n_own)) continue;
        const Boosters *own = &head->own[(Py_ssize_t)code];
        double said;
        if (!own->tables) continue;
        if (ask_boosters(desk, own, i, 1, &said) < 0) return -1;
        out[i] = (1.0 - head->own_share) * out[i] + head->own_share * said;
    }
    return 1;
}

#define EDGE 1e-6 /* models/calibration.py's */

/* The arithmetic of models/router.py's _predict. */
static int ask_head(Desk *desk, const Role *role, const Head *head, double *out) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    if (ask_boosters(desk, &head->pooled, 0, n, out) < 0 || (head->n_own && mix_own(desk, role, head, out) < 0)) return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (head->offset >= 0) {
            const double promised = desk->matrix[i * width + head->offset];
            out[i] += (isnan(promised) ? 0.0 : promised) * 60000.0;
        }
        if (head->is_scaled) {
            double kept = out[i] < EDGE ? EDGE : out[i];
            if (kept > 1.0 - EDGE) kept = 1.0 - EDGE;
            out[i] = 0.5 + 0.5 * tanh(0.5 * (head->slope * log(kept / (1.0 - kept)) + head->intercept));
        }
        if (out[i] < head->low) out[i] = head->low;
        if (out[i] > head->high) out[i] = head->high;
    }
    return 1;
}

/* numpy's interp for one x, with 0 to the left and 1 to the right. */
static double interpolate(double x, const double *xs, const double *ys, Py_ssize_t n) {
    Py_ssize_t low = 0, high = n;
    if (x > xs[n - 1]) return 1.0;
    if (x < xs[0]) return 0.0;
    while (low < high) {
        const Py_ssize_t middle = low + (high - low) / 2;
        if (x >= xs[middle]) low = middle + 1;
        else high = middle;
    }
    const Py_ssize_t at = low - 1;
    if (at < 0 || at == n - 1 || xs[at] == x) return at < 0 ? NAN : ys[at];
    return (ys[at + 1] - ys[at]) / (xs[at + 1] - xs[at]) * (x - xs[at]) + ys[at];
}

/* What follows from the logarithm of the latency: quantiles, and the risk of exceeding the limit. */
static void spread_latency(Role *role, const double *logarithm, Py_ssize_t n) {
    double *outputs = role->predicted + n;
    for (Py_ssize_t q = 0; q < role->n_spread; q++)
        for (Py_ssize_t i = 0; i < n; i++) outputs[role->spread[q].output * n + i] = exp(logarithm[i] + role->spread[q].above);
    for (Py_ssize_t i = 0; role->limit_output >= 0 && i < n; i++)
        outputs[role->limit_output * n + i]
            = 1.0 - interpolate(role->log_limit - logarithm[i], role->residuals, role->levels, role->n_levels);
}

/* The value of features/objective.py, term by term. */
static void add_terms(Role *role, Py_ssize_t n) {
    double *value = role->predicted;
    for (Py_ssize_t i = 0; i < n; i++) value[i] = 0.0;
    for (Py_ssize_t t = 0; t < role->n_terms; t++) {
        const Term *term = &role->terms[t];
        const double *out = role->predicted + (term->output + 1) * n;
        for (Py_ssize_t i = 0; i < n; i++) {
            if (term->weight > 0.0) value[i] += term->weight * out[i];
            if (term->weight < 0.0) value[i] -= -term->weight * out[i] / term->per;
        }
    }
}

static int ask_heads(Desk *desk, Role *role) {
    const Py_ssize_t n = desk->asked.field.n;
    double logarithm[MAX_CANDIDATES];
    int has_logarithm = 0;
    for (Py_ssize_t h = 0; h < role->n_heads; h++) {
        const Head *head = &role->heads[h];
        has_logarithm |= head->output < 0;
        if (ask_head(desk, role, head, head->output < 0 ? logarithm : role->predicted + (head->output + 1) * n) < 0) return -1;
    }
    if (has_logarithm) spread_latency(role, logarithm, n);
    add_terms(role, n);
    return 1;
}

/* What each candidate would use of every limited resource; what is not told counts as the most that was seen. */
static void meter(const Desk *desk, Role *role) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    for (Py_ssize_t j = 0; j < role->tariff.n; j++) {
        const PricedLimit *limit = &role->tariff.limits[j];
        for (Py_ssize_t i = 0; i < n; i++) {
            double use = desk->asked.candidates[i].destination == limit->place;
            if (limit->teller == BY_NUMBER) use = desk->matrix[i * width + limit->place];
            if (limit->teller == BY_OUTPUT) use = role->predicted[limit->place * n + i];
            if (isnan(use)) use = limit->most;
            role->tariff.use[j * MAX_CANDIDATES + i] = use > 0.0 ? use : 0.0;
        }
    }
}

/* Make a model's distribution of what it says of the candidates; 0 where that is not finite. */
static int spread_role(Desk *desk, Role *role) {
    const Field *field = &desk->asked.field;
    const Exploration *how = &desk->asked.course->exploration;
    double greedy[MAX_CANDIDATES], *values = role->predicted;
    if (role->tariff.n) {
        values = role->predicted + role->n_told * field->n;
        meter(desk, role);
        net(&role->tariff, role->predicted, field->n, values);
        for (Py_ssize_t i = 0; i < field->n; i++)
            if (!isfinite(values[i])) return 0;
        soften(field, values, role->tariff.temperature, greedy);
    }
    explore(field, values, how, role->tariff.n ? greedy : NULL, role->shares);
    return 1;
}

static int score_role(Desk *desk, Role *role) {
    encode_categories(desk, role);
    const int told = role->score == Py_None ? ask_heads(desk, role) : ask_model(desk, role);
    if (told != 1) return told;
    for (Py_ssize_t i = 0; i < desk->asked.field.n * role->n_told; i++)
        if (!isfinite(role->predicted[i])) return 0;
    return spread_role(desk, role);
}

#endif
