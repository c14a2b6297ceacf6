/* What is remembered from call to call: the destinations' side of rows, by its values. */

#ifndef TURNOUT_LEAF_MEMORY_H
#define TURNOUT_LEAF_MEMORY_H

#include "leaf_rows.h"


/* Whether n cells of a column are the same to the last bit. */
static int is_alike(const double *cell, Py_ssize_t n_features, Py_ssize_t n) {
    uint64_t first, other, differs = 0;
    memcpy(&first, cell, sizeof first);
    for (Py_ssize_t i = 1; i < n; i++) {
        memcpy(&other, cell + i * n_features, sizeof other);
        differs |= first ^ other;
    }
    return !differs;
}

/* Learn which columns differ between rows; when there are more of them than before, what is remembered is void. */
static void learn_own(const Masks *self, Memory *memory, const double *matrix, Py_ssize_t n) {
    const Py_ssize_t n_before = memory->call++ % SEASON ? memory->n_own : 0;
    if (!n_before) memset(memory->is_own, 0, (size_t)self->n_columns);
    memory->n_own = n_before;
    for (Py_ssize_t c = 0; c < self->n_columns; c++) {
        if (memory->is_own[c] || is_alike(matrix + self->columns[c].feature, self->n_features, n)) continue;
        memory->is_own[c] = 1;
        memory->own[memory->n_own++] = c;
    }
    if (memory->n_own != n_before || !n_before) memset(memory->stamps, 0, SLOTS * sizeof(uint64_t));
}

/* The slot of a row's own values, and whether its masks are there; else the slot is given to them. No two rows of a call
   are given the same one. */
static int find_slot(const Masks *self, Memory *memory, const double *row, Py_ssize_t *slot) {
    double key[MAX_OWN];
    uint64_t hash = 14695981039346656037u;
    const size_t size = (size_t)memory->n_own * sizeof(double);
    for (Py_ssize_t k = 0; k < memory->n_own; k++) {
        uint64_t bits;
        key[k] = row[self->columns[memory->own[k]].feature];
        memcpy(&bits, &key[k], sizeof bits);
        hash = (hash ^ bits) * 1099511628211u;
        hash ^= hash >> 32;
    }
    for (*slot = (Py_ssize_t)(hash % SLOTS);; *slot = (*slot + 1) % SLOTS) {
        double *held = memory->keys + *slot * self->n_columns;
        if (memory->stamps[*slot] && !memcmp(held, key, size)) {
            memory->stamps[*slot] = memory->call;
            return 1;
        }
        if (memory->stamps[*slot] != memory->call) { /* at most CHUNK slots are of this call */
            memory->stamps[*slot] = memory->call;
            memcpy(held, key, size);
            return 0;
        }
    }
}

/* As find_rows, for what is not remembered: `missed` names the rows whose own columns are to be found. */
static void find_missed(const Masks *self, const Memory *memory, const double *matrix, const Py_ssize_t *missed,
                        Py_ssize_t n_missed, Found *found) {
    double values[CHUNK];
    int64_t rows[CHUNK];
    found->n_shared = found->n_own = 0;
    for (Py_ssize_t c = 0; c < self->n_columns; c++) {
        const Column *column = &self->columns[c];
        const double *cell = matrix + column->feature;
        const Py_ssize_t n = memory->is_own[c] ? n_missed : 1;
        for (Py_ssize_t i = 0; i < n; i++) values[i] = cell[memory->is_own[c] ? missed[i] * self->n_features : 0];
        (column->kind == NUMBER ? locate_numbers : locate_categories)(self, column, values, n, rows);
        if (!memory->is_own[c]) {
            found->shared[found->n_shared++] = rows[0];
            continue;
        }
        for (Py_ssize_t i = 0; i < n; i++) found->own[i * self->n_columns + found->n_own] = rows[i];
        found->n_own++;
    }
}

/* Score the rows of one event: `shared` has room for the masks that all of them share. */
#define DEFINE_ADD_REMEMBERED(NAME, MASK, AND_ROWS, ADD)                                                 \
    static void NAME(const Masks *self, Memory *memory, const double *matrix, Py_ssize_t n, Found *found, \
                     MASK *shared, double *out) {                                                        \
        const Py_ssize_t n_trees = self->n_trees;                                                        \
        const MASK *masks = self->masks.buf, *own[CHUNK];                                                \
        Py_ssize_t slots[CHUNK], missed[CHUNK] = {0}, n_missed = 0;                                      \
        for (Py_ssize_t i = 0; i < n; i++) {                                                             \
            if (!find_slot(self, memory, matrix + i * self->n_features, &slots[i])) missed[n_missed++] = i; \
            own[i] = (MASK *)memory->masks + slots[i] * n_trees;                                         \
        }                                                                                                \
        find_missed(self, memory, matrix, missed, n_missed, found);                                      \
        for (Py_ssize_t i = 0; i < n_missed; i++) {                                                      \
            MASK *held = (MASK *)memory->masks + slots[missed[i]] * n_trees;                             \
            memset(held, 0xff, (size_t)n_trees * sizeof(MASK));                                          \
            AND_ROWS(held, masks, found->own + i * self->n_columns, found->n_own, n_trees);              \
        }                                                                                                \
        memset(shared, 0xff, (size_t)n_trees * sizeof(MASK));                                            \
        AND_ROWS(shared, masks, found->shared, found->n_shared, n_trees);                                \
        ADD(self, shared, own, n, out);                                                                  \
    }

DEFINE_ADD_REMEMBERED(add_remembered_32, uint32_t, and_rows_32, add_32)
DEFINE_ADD_REMEMBERED(add_remembered_64, uint64_t, and_rows_64, add_64)

static int alloc_memory(Masks *self) {
    Memory *memory = &self->memory;
    const size_t n_columns = (size_t)self->n_columns, mask_bytes = (size_t)self->width / 8;
    if (!memory->is_own) memory->is_own = calloc(n_columns + 1, 1);
    if (!memory->own) memory->own = calloc(n_columns + 1, sizeof(Py_ssize_t));
    if (!memory->keys) memory->keys = calloc(SLOTS * n_columns + 1, sizeof(double));
    if (!memory->masks) memory->masks = malloc(SLOTS * (size_t)self->n_trees * mask_bytes);
    if (!memory->stamps) memory->stamps = calloc(SLOTS, sizeof(uint64_t));
    return memory->is_own && memory->own && memory->keys && memory->masks && memory->stamps;
}

#endif
