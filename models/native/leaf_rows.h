/* From rows of features to sums of leaves: table rows by value, their AND, the lowest bit left. */

#ifndef TURNOUT_LEAF_ROWS_H
#define TURNOUT_LEAF_ROWS_H

#include "clones.h"
#include "leaf_tables.h"

static unsigned trailing_zeros(uint64_t bits) {
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(bits);
#else
    unsigned n = 0;
    while (!(bits & 1)) { bits >>= 1; n++; }
    return n;
#endif
}

static int is_constant(const double *values, Py_ssize_t n) {
    for (Py_ssize_t i = 1; i < n; i++)
        if (memcmp(&values[i], &values[0], sizeof(double))) return 0;
    return 1;
}

/* The table row of a number: how many thresholds are below it, or that of zero, or of NaN. */
static int64_t locate_number(const Masks *self, const Column *column, double value) {
    if (value != value) return column->first + column->count + 2;
    if (fabs(value) <= ZERO_THRESHOLD) return column->first + column->count + 1;
    const double *base = self->thresholds + column->start;
    for (int64_t left = column->count; left > 1; left -= left / 2) base += base[left / 2 - 1] < value ? left / 2 : 0;
    return column->first + (base - (self->thresholds + column->start)) + (*base < value);
}

/* The same for n values (n <= CHUNK): for many, all searches at once take two thirds of the time that they take one after the other. */
static void locate_numbers(const Masks *self, const Column *column, const double *values, Py_ssize_t n, int64_t *rows) {
    if (n == 1) {
        rows[0] = locate_number(self, column, values[0]);
        return;
    }
    const double *thresholds = self->thresholds + column->start;
    for (Py_ssize_t i = 0; i < n; i++) rows[i] = 0;
    for (int64_t left = column->count; left > 1; left -= left / 2) /* all searches step by step: none waits for another */
        for (Py_ssize_t i = 0; i < n; i++)
            rows[i] += left / 2 & -(int64_t)(thresholds[rows[i] + left / 2 - 1] < values[i]);
    for (Py_ssize_t i = 0; i < n; i++) {
        rows[i] += column->first + (thresholds[rows[i]] < values[i]);
        if (fabs(values[i]) <= ZERO_THRESHOLD) rows[i] = column->first + column->count + 1;
        if (values[i] != values[i]) rows[i] = column->first + column->count + 2;
    }
}

/* The same for categories: numbers are truncated, so that -0.5 is category 0; the first row is of those not known. */
static void locate_categories(const Masks *self, const Column *column, const double *values, Py_ssize_t n, int64_t *rows) {
    for (Py_ssize_t i = 0; i < n; i++) {
        const int is_known = values[i] > -1.0 && values[i] < (double)column->count;
        rows[i] = column->first + (is_known ? self->lookup[column->start + (int64_t)values[i]] : 0);
    }
}

/* Rows of masks: those shared by all rows of a call, then for each row its own. */
typedef struct {
    Py_ssize_t n_shared, n_own;
    int64_t *shared, *own;
} Found;

static void find_rows(const Masks *self, const double *matrix, Py_ssize_t n, Found *found) {
    found->n_shared = found->n_own = 0;
    for (Py_ssize_t c = 0; c < self->n_columns; c++) {
        const Column *column = &self->columns[c];
        double values[CHUNK];
        int64_t rows[CHUNK], differs = 0;
        for (Py_ssize_t i = 0; i < n; i++) values[i] = matrix[i * self->n_features + column->feature];
        const int is_same = is_constant(values, n);
        (column->kind == NUMBER ? locate_numbers : locate_categories)(self, column, values, is_same ? 1 : n, rows);
        for (Py_ssize_t i = 1; i < (is_same ? 1 : n); i++) differs |= rows[i] ^ rows[0];
        if (differs) {
            for (Py_ssize_t i = 0; i < n; i++) found->own[i * self->n_columns + found->n_own] = rows[i];
            found->n_own++;
        } else {
            found->shared[found->n_shared++] = rows[0];
        }
    }
}

/* left &= the masks of n table rows, four at a time, for all trees; the last leaf stays, so that a bad table still names one. */
#define DEFINE_AND(NAME, MASK, BITS)                                                                 \
    CLONES static void NAME(MASK *restrict left, const MASK *restrict masks, const int64_t *rows,    \
                            Py_ssize_t n, Py_ssize_t n_trees) {                                      \
        for (; n >= 4; n -= 4, rows += 4) {                                                          \
            const MASK *a = masks + rows[0] * n_trees, *b = masks + rows[1] * n_trees;               \
            const MASK *c = masks + rows[2] * n_trees, *d = masks + rows[3] * n_trees;               \
            for (Py_ssize_t tree = 0; tree < n_trees; tree++)                                        \
                left[tree] &= a[tree] & b[tree] & c[tree] & d[tree];                                 \
        }                                                                                            \
        for (; n > 0; n--, rows++) {                                                                 \
            const MASK *a = masks + rows[0] * n_trees;                                               \
            for (Py_ssize_t tree = 0; tree < n_trees; tree++) left[tree] &= a[tree];                 \
        }                                                                                            \
        for (Py_ssize_t tree = 0; tree < n_trees; tree++) left[tree] |= (MASK)1 << (BITS - 1);       \
    }

DEFINE_AND(and_rows_32, uint32_t, 32)
DEFINE_AND(and_rows_64, uint64_t, 64)

/* The sums of some rows at once, which need not wait for each other's additions: a row's masks are those shared by all and its own. */
#define DEFINE_SUM(NAME, MASK, BITS)                                                                     \
    static inline void NAME(const MASK *shared, const MASK *const *own, const double *leaves, Py_ssize_t n_trees, \
                            const int n, double *out) {                                                  \
        double sums[LANES] = {0};                                                                        \
        for (Py_ssize_t tree = 0; tree < n_trees; tree++, leaves += BITS)                                \
            for (int lane = 0; lane < n; lane++)                                                         \
                sums[lane] += leaves[trailing_zeros(shared[tree] & own[lane][tree])];                    \
        for (int lane = 0; lane < n; lane++) out[lane] = sums[lane];                                     \
    }

DEFINE_SUM(sum_leaves_32, uint32_t, 32)
DEFINE_SUM(sum_leaves_64, uint64_t, 64)

/* The sums of n <= CHUNK rows, whose own masks lie where `own` says. */
#define DEFINE_ADD(NAME, MASK, SUM)                                                                      \
    static void NAME(const Masks *self, const MASK *shared, const MASK *const *own, Py_ssize_t n, double *out) { \
        Py_ssize_t i = 0;                                                                                \
        for (; i + LANES <= n; i += LANES) SUM(shared, own + i, self->values.buf, self->n_trees, LANES, out + i); \
        for (; i < n; i++) SUM(shared, own + i, self->values.buf, self->n_trees, 1, out + i);            \
    }

DEFINE_ADD(add_32, uint32_t, sum_leaves_32)
DEFINE_ADD(add_64, uint64_t, sum_leaves_64)

/* Score rows by what was found: `left` has room for the masks shared, and for those of CHUNK rows. */
#define DEFINE_ADD_LEAVES(NAME, MASK, AND_ROWS, ADD)                                                     \
    static void NAME(const Masks *self, const Found *found, Py_ssize_t n, MASK *left, double *out) {     \
        const Py_ssize_t n_trees = self->n_trees;                                                        \
        const MASK *masks = self->masks.buf, *own[CHUNK];                                                \
        MASK *of_row = left + n_trees;                                                                   \
        memset(left, 0xff, (size_t)((1 + n) * n_trees) * sizeof(MASK));                                  \
        AND_ROWS(left, masks, found->shared, found->n_shared, n_trees);                                  \
        for (Py_ssize_t i = 0; i < n; i++, of_row += n_trees) {                                          \
            AND_ROWS(of_row, masks, found->own + i * self->n_columns, found->n_own, n_trees);            \
            own[i] = of_row;                                                                             \
        }                                                                                                \
        ADD(self, left, own, n, out);                                                                    \
    }

DEFINE_ADD_LEAVES(add_leaves_32, uint32_t, and_rows_32, add_32)
DEFINE_ADD_LEAVES(add_leaves_64, uint64_t, and_rows_64, add_64)

#endif
