/* The sums of weights by an event's values: what models/logits.py and models/components.py do, in the same order. */

#ifndef TURNOUT_SUMS_H
#define TURNOUT_SUMS_H

#include <math.h>
#include <string.h>

#include "arrays.h"
#include "clones.h"

static inline void add_four(float *restrict sums, const float *const rows[4], const float by[4], Py_ssize_t width) {
    const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
    for (Py_ssize_t i = 0; i < width; i++)
        sums[i] = (((sums[i] + by[0] * a[i]) + by[1] * b[i]) + by[2] * c[i]) + by[3] * d[i];
}

/* The sum of some rows of weights, each times its value, one after another; columns past the last row say nothing. */
CLONES static void add_rows(const Py_buffer *weights, const int32_t *columns, const float *values, Py_ssize_t n, float *sums) {
    const Py_ssize_t n_rows = weights->shape[0], width = weights->shape[1];
    const float *rows[4];
    float by[4];
    int n_held = 0;
    memset(sums, 0, (size_t)width * sizeof(float));
    for (Py_ssize_t i = 0; i < n; i++) {
        if (columns[i] >= n_rows) continue;
        rows[n_held] = (const float *)weights->buf + columns[i] * width;
        by[n_held++] = values[i];
        if (n_held == 4) {
            add_four(sums, rows, by, width);
            n_held = 0;
        }
    }
    for (int r = 0; r < n_held; r++)
        for (Py_ssize_t i = 0; i < width; i++) sums[i] += by[r] * rows[r][i];
}

static void scale_scores(float *scores, const Py_buffer *intercept, float scale, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) scores[i] = (scores[i] + ((const float *)intercept->buf)[i]) * scale;
}

static void score_linear(Scorer *self) {
    const Py_buffer *arrays = self->arrays;
    add_rows(&arrays[LINEAR], self->columns, self->values, self->n_told, self->of_linear);
    scale_scores(self->of_linear, &arrays[LINEAR_INTERCEPT], self->linear_scale, self->n_columns);
}

/* A hidden unit that is zero adds nothing to a sum. */
static void score_neural(Scorer *self) {
    const Py_buffer *arrays = self->arrays;
    const float *intercept = arrays[HIDDEN_INTERCEPT].buf;
    Py_ssize_t n_active = 0;
    add_rows(&arrays[HIDDEN], self->columns, self->values, self->n_told, self->hidden);
    for (Py_ssize_t i = 0; i < self->n_hidden; i++) {
        const float unit = self->hidden[i] + intercept[i];
        self->hidden[n_active] = unit;
        self->active[n_active] = (int32_t)i;
        n_active += !(unit <= 0.0f);
    }
    add_rows(&arrays[OUTPUT], self->active, self->hidden, n_active, self->of_neural);
    scale_scores(self->of_neural, &arrays[OUTPUT_INTERCEPT], self->neural_scale, self->n_columns);
}

/* Fill the probabilities of the classes, and return the greatest logit among them; what is not a number stays none. */
static double find_probabilities(Scorer *self, double *probabilities) {
    double *logits = self->logits, evidence, most, sum = 0.0;
    for (Py_ssize_t i = 0; i < self->n_columns; i++) logits[i] = (double)self->of_linear[i] + (double)self->of_neural[i];
    evidence = logits[0];
    for (Py_ssize_t i = 1; i < self->n_classes; i++)
        if (logits[i] > evidence || isnan(logits[i])) evidence = logits[i];
    most = evidence;
    for (Py_ssize_t i = self->n_classes; i < self->n_columns; i++)
        if (logits[i] > most || isnan(logits[i])) most = logits[i];
    for (Py_ssize_t i = 0; i < self->n_columns; i++) {
        const double grown = exp(logits[i] - most);
        if (i < self->n_classes) probabilities[i] = grown;
        sum += grown;
    }
    for (Py_ssize_t i = 0; i < self->n_classes; i++) probabilities[i] /= sum;
    return evidence;
}

#endif
