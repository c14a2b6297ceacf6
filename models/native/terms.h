/* From what is remembered of an event's pieces to its columns and their TF-IDF values; what Encoder in models/text_encoder.py does. */

#ifndef TURNOUT_TERMS_H
#define TURNOUT_TERMS_H

#include <math.h>
#include <string.h>

#include "arrays.h"

static void tell(Scorer *self, int32_t column) {
    if (!self->count[column]++) self->columns[self->n_told++] = column;
}

static void tell_pair(Scorer *self, int32_t left, int32_t right, int is_apart) {
    uint64_t key;
    if (left < 0 || right < 0) return;
    const int32_t column = find_pair(self, left, right, is_apart, &key)->column;
    if (column >= 0) tell(self, column);
}

/* Tell the n words read, and then the pairs that they make with each other and the borders. */
static void tell_words(Scorer *self, Py_ssize_t n) {
    int32_t *words = self->read;
    if (!n) return;
    for (Py_ssize_t i = 1; i <= n; i++)
        if (words[i] >= 0 && self->words[words[i]] >= 0) tell(self, self->words[words[i]]);
    words[0] = self->start;
    words[n + 1] = self->end;
    for (Py_ssize_t left = 0; left <= n; left++) {
        tell_pair(self, words[left], words[left + 1], 0);
        for (Py_ssize_t right = left + 2; right - left < self->span && right <= n + 1; right++)
            tell_pair(self, words[left], words[right], 1);
    }
}

/* What is remembered of a piece: int32s, how many words, the words (-1 for one not known), the columns of its n-grams. */
typedef struct {
    const char *items;
    Py_ssize_t n_words, n;
} Piece;

static int32_t item_of(const Piece *piece, Py_ssize_t i) {
    int32_t item;
    memcpy(&item, piece->items + (size_t)i * sizeof item, sizeof item);
    return item;
}

static int read_piece(PyObject *object, Piece *piece) {
    char *items;
    Py_ssize_t n_bytes;
    if (!object || PyBytes_AsStringAndSize(object, &items, &n_bytes) < 0) return -1;
    *piece = (Piece){items, 0, n_bytes / (Py_ssize_t)sizeof(int32_t)};
    const int32_t n_words = piece->n ? item_of(piece, 0) : -1;
    if (n_bytes % (Py_ssize_t)sizeof(int32_t) || n_words < 0 || n_words >= piece->n) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are no piece of a text", n_bytes);
        return -1;
    }
    piece->n_words = n_words;
    return 0;
}

static int make_room(Scorer *self, Py_ssize_t n) {
    if (n <= self->n_room) return 0;
    int32_t *read = realloc(self->read, 2 * (size_t)n * sizeof(int32_t));
    if (!read) {
        PyErr_NoMemory();
        return -1;
    }
    self->read = read;
    self->n_room = 2 * n;
    return 0;
}

/* Read the words of a piece after the n before them; how many there are now, or -1 with an error set. */
static Py_ssize_t read_words(Scorer *self, PyObject *object, Py_ssize_t n) {
    Piece piece;
    if (read_piece(object, &piece) < 0 || make_room(self, n + piece.n_words + 2) < 0) return -1;
    for (Py_ssize_t i = 1; i <= piece.n_words; i++) {
        const int32_t word = item_of(&piece, i);
        if (word < -1 || word >= self->n_words) {
            PyErr_Format(PyExc_ValueError, "word %d is none of %zd", (int)word, self->n_words);
            return -1;
        }
        self->read[++n] = word;
    }
    return n;
}

static int tell_columns(Scorer *self, PyObject *object) {
    Piece piece;
    if (read_piece(object, &piece) < 0) return -1;
    for (Py_ssize_t i = 1 + piece.n_words; i < piece.n; i++) {
        const int32_t column = item_of(&piece, i);
        if (column < 0 || column >= self->n_terms) {
            PyErr_Format(PyExc_ValueError, "column %d is none of %zd", (int)column, self->n_terms);
            return -1;
        }
        tell(self, column);
    }
    return 0;
}

/* Give the columns told from `start` on their TF-IDF weights, as a block of unit length times its weight. */
static int weigh(Scorer *self, Py_ssize_t start) {
    const double *idf = self->arrays[IDF].buf, *sublinear = self->arrays[SUBLINEAR].buf;
    const Py_ssize_t n_sublinear = self->arrays[SUBLINEAR].shape[0];
    double squares = 0.0;
    for (Py_ssize_t i = start; i < self->n_told; i++) {
        const int32_t column = self->columns[i], count = self->count[column];
        self->weighed[i] = (count < n_sublinear ? sublinear[count] : 1.0 + log(count)) * idf[column];
        squares += self->weighed[i] * self->weighed[i];
    }
    if (squares == 0.0 && start < self->n_told) {
        PyErr_SetString(PyExc_ZeroDivisionError, "no term of a block weighs anything");
        return -1;
    }
    const double scale = self->block_weight / sqrt(squares);
    for (Py_ssize_t i = start; i < self->n_told; i++) self->values[i] = (float)(self->weighed[i] * scale);
    return 0;
}

/* Fill columns and values block by block; -1 with an error set. */
static int encode(Scorer *self, PyObject *pieces, PyObject *facts) {
    const Py_ssize_t n_pieces = PyList_Check(pieces) ? PyList_Size(pieces) : -1;
    Py_ssize_t n_words = 0, start = 0;
    if (n_pieces < 0) {
        PyErr_SetString(PyExc_TypeError, "pieces must be a list");
        return -1;
    }
    for (Py_ssize_t p = 0; p < n_pieces; p++)
        if ((n_words = read_words(self, PyList_GetItem(pieces, p), n_words)) < 0) return -1;
    tell_words(self, n_words);
    if (weigh(self, start) < 0) return -1;
    start = self->n_told;
    for (Py_ssize_t p = 0; p < n_pieces; p++)
        if (tell_columns(self, PyList_GetItem(pieces, p)) < 0) return -1;
    if (weigh(self, start) < 0) return -1;
    start = self->n_told;
    return tell_columns(self, facts) < 0 ? -1 : weigh(self, start);
}

#endif
