/* What a scorer holds: a classifier's arrays, checked once, and the room that an event needs. */

#ifndef TURNOUT_ARRAYS_H
#define TURNOUT_ARRAYS_H

#include <Python.h>

#include <stdint.h>
#include <stdlib.h>

/* The arrays, by their names in the constructor; a part that is not there has no rows, and intercepts of 0. */
enum { IDF, SUBLINEAR, WORDS, PAIRS, LINEAR, LINEAR_INTERCEPT, HIDDEN, HIDDEN_INTERCEPT, OUTPUT, OUTPUT_INTERCEPT, COMPONENTS, N_ARRAYS };
static const char FORMATS[] = "ddiifffffff";
static const int N_DIMS[] = {1, 1, 1, 2, 2, 1, 2, 1, 2, 1, 2};
static char *names[] = {"idf", "sublinear", "words", "pairs", "linear", "linear_intercept", "hidden", "hidden_intercept",
                        "output", "output_intercept", "components", "n_classes", "start", "end", "span", "block_weight",
                        "linear_scale", "neural_scale", NULL};

typedef struct {
    uint64_t key;   /* of two words and how they stand */
    int32_t column; /* -1 where the slot is empty */
} Pair;

typedef struct {
    PyObject_HEAD
    Py_buffer arrays[N_ARRAYS];
    int32_t *words; /* by word: its own column, -1 for none */
    Pair *pairs;    /* by hash, at most half full */
    uint64_t n_slots;
    Py_ssize_t n_terms, n_words, n_columns, n_hidden, n_components, n_classes, span;
    int start, end; /* the words that stand for the borders of a text */
    double block_weight;
    float linear_scale, neural_scale;
    /* Of the event under way. */
    int32_t *count;   /* by column: how often it was told; 0 where it is not in `columns` */
    int32_t *columns; /* those told, in the order in which they first were */
    Py_ssize_t n_told;
    double *weighed;
    float *values; /* of the columns told */
    int32_t *read; /* the event's words between its borders */
    Py_ssize_t n_room;
    int32_t *active; /* the hidden units that are not zero */
    float *hidden, *of_linear, *of_neural, *placed;
    double *logits;
} Scorer;

/* Where a pair stands in the table, or the empty slot in which it would. */
static Pair *find_pair(const Scorer *self, int32_t left, int32_t right, int is_apart, uint64_t *key) {
    *key = (uint64_t)left << 33 | (uint64_t)right << 1 | (uint64_t)is_apart;
    uint64_t slot = (*key * 0x9E3779B97F4A7C15u) >> 32;
    while (self->pairs[slot &= self->n_slots - 1].column >= 0 && self->pairs[slot].key != *key) slot++;
    return &self->pairs[slot];
}

/* Take an array of so many rows and columns (-1 for any), of the type and dimensions that it must have. */
static int take_array(Scorer *self, int which, PyObject *const *objects, Py_ssize_t n_rows, Py_ssize_t width) {
    Py_buffer *array = &self->arrays[which];
    if (PyObject_GetBuffer(objects[which], array, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) return -1;
    int is_sound = array->ndim == N_DIMS[which] && array->format && array->format[0] == FORMATS[which] && !array->format[1]
                   && (uintptr_t)array->buf % (size_t)array->itemsize == 0;
    for (int axis = 0; is_sound && axis < array->ndim; axis++) {
        const Py_ssize_t expected = axis ? width : n_rows, n = array->shape[axis];
        is_sound = n <= INT32_MAX / 2 && (expected < 0 || n == expected);
    }
    if (is_sound) return 0;
    PyErr_Format(PyExc_ValueError, "%s is not of the type or shape that it must have", names[which]);
    return -1;
}

static int take_arrays(Scorer *self, PyObject *const *objects) {
    const Py_buffer *arrays = self->arrays;
    if (take_array(self, IDF, objects, -1, 0) < 0 || take_array(self, SUBLINEAR, objects, -1, 0) < 0
        || take_array(self, WORDS, objects, -1, 0) < 0 || take_array(self, PAIRS, objects, -1, 4) < 0
        || take_array(self, LINEAR, objects, -1, -1) < 0
        || take_array(self, LINEAR_INTERCEPT, objects, arrays[LINEAR].shape[1], 0) < 0
        || take_array(self, HIDDEN, objects, -1, -1) < 0
        || take_array(self, HIDDEN_INTERCEPT, objects, arrays[HIDDEN].shape[1], 0) < 0
        || take_array(self, OUTPUT, objects, arrays[HIDDEN].shape[1], arrays[LINEAR].shape[1]) < 0
        || take_array(self, OUTPUT_INTERCEPT, objects, arrays[LINEAR].shape[1], 0) < 0
        || take_array(self, COMPONENTS, objects, -1, -1) < 0)
        return -1;
    self->n_terms = arrays[IDF].shape[0];
    self->n_words = arrays[WORDS].shape[0];
    self->n_columns = arrays[LINEAR].shape[1];
    self->n_hidden = arrays[HIDDEN].shape[1];
    self->n_components = arrays[COMPONENTS].shape[1];
    if (self->n_classes >= 1 && self->n_classes <= self->n_columns) return 0;
    PyErr_Format(PyExc_ValueError, "n_classes must be one of 1 to %zd, got %zd", self->n_columns, self->n_classes);
    return -1;
}

static int alloc_room(Scorer *self) {
    const size_t n_terms = (size_t)self->n_terms + 1, n_columns = (size_t)self->n_columns, n_hidden = (size_t)self->n_hidden + 1;
    for (self->n_slots = 2; self->n_slots < 2 * (uint64_t)self->arrays[PAIRS].shape[0];) self->n_slots *= 2;
    if ((self->words = malloc(((size_t)self->n_words + 1) * sizeof(int32_t)))
        && (self->pairs = malloc((size_t)self->n_slots * sizeof(Pair))) && (self->count = calloc(n_terms, sizeof(int32_t)))
        && (self->columns = malloc(n_terms * sizeof(int32_t))) && (self->weighed = malloc(n_terms * sizeof(double)))
        && (self->values = malloc(n_terms * sizeof(float))) && (self->active = malloc(n_hidden * sizeof(int32_t)))
        && (self->hidden = malloc(n_hidden * sizeof(float))) && (self->of_linear = malloc(n_columns * sizeof(float)))
        && (self->of_neural = malloc(n_columns * sizeof(float))) && (self->logits = malloc(n_columns * sizeof(double)))
        && (self->placed = malloc(((size_t)self->n_components + 1) * sizeof(float))))
        return 0;
    PyErr_NoMemory();
    return -1;
}

/* Copy what words and pairs lead to, all of it to a column. */
static int take_vocabulary(Scorer *self) {
    const int32_t *words = self->arrays[WORDS].buf, *pairs = self->arrays[PAIRS].buf;
    int is_sound = 1;
    for (Py_ssize_t i = 0; i < self->n_words; i++) {
        self->words[i] = words[i];
        is_sound &= self->words[i] >= -1 && self->words[i] < self->n_terms;
    }
    for (uint64_t slot = 0; slot < self->n_slots; slot++) self->pairs[slot].column = -1;
    for (Py_ssize_t i = 0; i < self->arrays[PAIRS].shape[0]; i++, pairs += 4) {
        const int32_t left = pairs[0], right = pairs[1], is_apart = pairs[2], column = pairs[3];
        uint64_t key;
        is_sound &= left >= 0 && right >= 0 && (is_apart == 0 || is_apart == 1) && column >= 0 && column < self->n_terms;
        if (is_sound) {
            Pair *pair = find_pair(self, left, right, is_apart, &key);
            *pair = (Pair){key, column};
        }
    }
    if (is_sound) return 0;
    PyErr_SetString(PyExc_ValueError, "words or pairs lead outside of the terms");
    return -1;
}

#endif
