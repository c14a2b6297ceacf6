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

#define BLOCK 16 /* tables are padded to a multiple of so many trees */
#define CHUNK 32 /* rows that share what is the same in all of them */
#define MAX_OWN 64 /* columns of a destination's side; with more, nothing is remembered */
#define LANES 4 /* rows whose leaves are added side by side */
#define SLOTS 128 /* destinations whose side is remembered; a power of two, more than CHUNK */
#define SEASON 4096 /* calls after which it is learned anew which columns are the destinations' */
#define RELEASE_ROWS 256 /* with more, other threads may run meanwhile */

static const double ZERO_THRESHOLD = 1e-35f; /* LightGBM's kZeroThreshold: what is no larger is zero */

enum { NUMBER = 0, CATEGORY = 1 };
enum { IDENTITY = 0, SIGMOID = 1, EXPONENTIAL = 2, SQUARE = 3, SOFTPLUS = 4 };

typedef struct {
    int64_t feature, kind, start, count, first;
} Column;

/* The side of some destinations: the values of the columns in which rows differ, and the AND of their masks. It is used
   and changed only while the interpreter's lock is held. */
typedef struct {
    uint8_t *is_own;    /* by column: whether it differed between the rows of a call this season */
    Py_ssize_t *own;    /* those columns */
    Py_ssize_t n_own;
    double *keys;       /* [SLOTS, n_columns] */
    void *masks;        /* [SLOTS, n_trees] */
    uint64_t *stamps;   /* by slot: the call that used it last, 0 for none */
    uint64_t call;
} Memory;

typedef struct {
    PyObject_HEAD
    Memory memory;
    Py_buffer values, masks; /* float64[n_trees, width], uint[n_rows, n_trees] */
    Column *columns;
    double *thresholds;
    int32_t *lookup;
    Py_ssize_t n_features, n_trees, n_columns, n_rows;
    int width, link;
    double parameter, divisor;
} Masks;

/* Where compiler and C library choose between two compiled forms of a function by what the processor has. */
#if defined(__GLIBC__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

static size_t trailing_zeros(uint64_t bits) {
#if defined(__GNUC__)
    return (size_t)__builtin_ctzll(bits);
#else
    size_t n = 0;
    while (!(bits & 1)) { bits >>= 1; n++; }
    return n;
#endif
}

static int is_constant(const double *values, Py_ssize_t n) {
    for (Py_ssize_t i = 1; i < n; i++)
        if (memcmp(&values[i], &values[0], sizeof(double))) return 0;
    return 1;
}

/* The table rows of a number's column for n values (n <= CHUNK): thresholds below each, zero, or NaN. */
static void locate_numbers(const Masks *self, const Column *column, const double *values, Py_ssize_t n, int64_t *rows) {
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

/* left &= the masks of n table rows, four at a time, for all trees. */
#define DEFINE_AND(NAME, MASK)                                                                       \
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
    }

DEFINE_AND(and_rows_32, uint32_t)
DEFINE_AND(and_rows_64, uint64_t)

/* The sums of some rows at once, which need not wait for each other's additions; `left` holds n_trees masks per row. */
#define DEFINE_SUM(NAME, MASK, BITS)                                                                 \
    static inline void NAME(const MASK *left, const double *leaves, Py_ssize_t n_trees, const int n, \
                            double *out) {                                                           \
        const MASK last = (MASK)1 << (BITS - 1); /* a bad table still names a leaf */                \
        double sums[LANES] = {0};                                                                    \
        for (Py_ssize_t tree = 0; tree < n_trees; tree++, leaves += BITS)                            \
            for (int lane = 0; lane < n; lane++)                                                     \
                sums[lane] += leaves[trailing_zeros(left[lane * n_trees + tree] | last)];            \
        for (int lane = 0; lane < n; lane++) out[lane] = sums[lane];                                 \
    }

DEFINE_SUM(sum_leaves_32, uint32_t, 32)
DEFINE_SUM(sum_leaves_64, uint64_t, 64)

#define DEFINE_ADD_LEAVES(NAME, MASK, AND_ROWS, SUM)                                                \
    static void NAME(const Masks *self, const Found *found, Py_ssize_t n, MASK *left, double *out) { \
        const Py_ssize_t n_trees = self->n_trees, size = n_trees * (Py_ssize_t)sizeof(MASK);         \
        const MASK *masks = self->masks.buf;                           \
        MASK *shared = left + LANES * n_trees;                                                       \
        for (Py_ssize_t tree = 0; tree < n_trees; tree++) shared[tree] = (MASK) ~(MASK)0;            \
        AND_ROWS(shared, masks, found->shared, found->n_shared, n_trees);                            \
        for (Py_ssize_t start = 0; start < n; start += LANES) {                                      \
            const int n_lanes = n - start < LANES ? (int)(n - start) : LANES;                        \
            for (int lane = 0; lane < n_lanes; lane++) {                                             \
                MASK *own = left + lane * n_trees;                                                   \
                memcpy(own, shared, (size_t)size);                                                   \
                AND_ROWS(own, masks, found->own + (start + lane) * self->n_columns, found->n_own, n_trees); \
            }                                                                                        \
            if (n_lanes == LANES)                                                                    \
                SUM(left, self->values.buf, n_trees, LANES, out + start);                            \
            else                                                                                     \
                for (int lane = 0; lane < n_lanes; lane++)                                           \
                    SUM(left + lane * n_trees, self->values.buf, n_trees, 1, out + start + lane);    \
        }                                                                                            \
    }

DEFINE_ADD_LEAVES(add_leaves_32, uint32_t, and_rows_32, sum_leaves_32)
DEFINE_ADD_LEAVES(add_leaves_64, uint64_t, and_rows_64, sum_leaves_64)

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

#define DEFINE_ADD_REMEMBERED(NAME, MASK, AND_ROWS, SUM)                                             \
    static void NAME(const Masks *self, Memory *memory, const double *matrix, Py_ssize_t n,          \
                     Found *found, MASK *left, double *out) {                                        \
        const Py_ssize_t n_trees = self->n_trees;                                                    \
        const MASK *masks = self->masks.buf;                                                         \
        MASK *shared = left + LANES * n_trees, *held = memory->masks;                                \
        Py_ssize_t slots[CHUNK], missed[CHUNK], n_missed = 0;                                        \
        for (Py_ssize_t i = 0; i < n; i++)                                                           \
            if (!find_slot(self, memory, matrix + i * self->n_features, &slots[i])) missed[n_missed++] = i; \
        find_missed(self, memory, matrix, missed, n_missed, found);                                  \
        for (Py_ssize_t i = 0; i < n_missed; i++) {                                                  \
            MASK *own = held + slots[missed[i]] * n_trees;                                           \
            memset(own, 0xff, (size_t)n_trees * sizeof(MASK));                                       \
            AND_ROWS(own, masks, found->own + i * self->n_columns, found->n_own, n_trees);           \
        }                                                                                            \
        memset(shared, 0xff, (size_t)n_trees * sizeof(MASK));                                        \
        AND_ROWS(shared, masks, found->shared, found->n_shared, n_trees);                            \
        for (Py_ssize_t start = 0; start < n; start += LANES) {                                      \
            const Py_ssize_t n_lanes = n - start < LANES ? n - start : LANES;                        \
            for (Py_ssize_t lane = 0; lane < n_lanes; lane++) {                                      \
                memcpy(left + lane * n_trees, shared, (size_t)n_trees * sizeof(MASK));               \
                AND_ROWS(left + lane * n_trees, held, (const int64_t[]){slots[start + lane]}, 1, n_trees); \
            }                                                                                        \
            if (n_lanes == LANES)                                                                    \
                SUM(left, self->values.buf, n_trees, LANES, out + start);                            \
            else                                                                                     \
                for (Py_ssize_t lane = 0; lane < n_lanes; lane++)                                    \
                    SUM(left + lane * n_trees, self->values.buf, n_trees, 1, out + start + lane);    \
        }                                                                                            \
    }

DEFINE_ADD_REMEMBERED(add_remembered_32, uint32_t, and_rows_32, sum_leaves_32)
DEFINE_ADD_REMEMBERED(add_remembered_64, uint64_t, and_rows_64, sum_leaves_64)

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
    int64_t *scratch = malloc((n_found + (LANES + 1) * (size_t)self->n_trees) * sizeof(int64_t));
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

/* A private copy of a buffer of n items, or NULL with an error set. */
static void *copy_items(PyObject *object, size_t item, Py_ssize_t *n) {
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0) return NULL;
    void *copy = malloc((size_t)view.len + 1);
    if (copy) memcpy(copy, view.buf, (size_t)view.len);
    else PyErr_NoMemory();
    *n = view.len / (Py_ssize_t)item;
    PyBuffer_Release(&view);
    return copy;
}

static int check_columns(const Masks *self, Py_ssize_t n_thresholds, Py_ssize_t n_lookup) {
    for (Py_ssize_t c = 0; c < self->n_columns; c++) {
        const Column column = self->columns[c];
        const int is_number = column.kind == NUMBER;
        const Py_ssize_t n_items = is_number ? n_thresholds : n_lookup;
        int64_t n_rows = column.count + 3;
        int is_sound = (is_number || column.kind == CATEGORY) && column.feature >= 0 && column.feature < self->n_features
                       && column.count >= is_number && column.count <= n_items && column.start >= 0
                       && column.start <= n_items - column.count && column.first >= 0;
        if (is_sound && !is_number) {
            n_rows = 1;
            for (int64_t i = 0; i < column.count; i++) {
                const int32_t row = self->lookup[column.start + i];
                if (row < 0) is_sound = 0;
                if (row >= n_rows) n_rows = (int64_t)row + 1;
            }
        }
        if (!is_sound || n_rows > self->n_rows || column.first > self->n_rows - n_rows) {
            PyErr_Format(PyExc_ValueError, "column %zd leads outside of the tables", c);
            return -1;
        }
    }
    return 0;
}

static int check_sizes(Masks *self) {
    const Py_ssize_t mask_bytes = self->width / 8, row_bytes = self->n_trees * mask_bytes;
    if ((self->width != 32 && self->width != 64) || self->n_trees <= 0 || self->n_trees % BLOCK || self->n_features < 1
        || self->n_trees > PY_SSIZE_T_MAX / 1024 || self->n_features > PY_SSIZE_T_MAX / 1024) {
        PyErr_Format(PyExc_ValueError, "unusable tables: width %d, %zd trees, %zd features", self->width, self->n_trees,
                     self->n_features);
        return -1;
    }
    if ((uintptr_t)self->values.buf % sizeof(double) || (uintptr_t)self->masks.buf % sizeof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "leaf values and masks must be aligned");
        return -1;
    }
    if (self->values.len != self->n_trees * self->width * (Py_ssize_t)sizeof(double) || self->masks.len % row_bytes) {
        PyErr_SetString(PyExc_ValueError, "leaf values or masks are not of the size that the trees ask for");
        return -1;
    }
    self->n_rows = self->masks.len / row_bytes;
    return 0;
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

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_masks", "Scoring by leaf masks.", 0, NULL, module_slots,
                             NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__masks(void) { return PyModuleDef_Init(&module); }
