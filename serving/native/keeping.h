/* What becomes of decisions that were made: their events are remembered, their lines held to be written, and they are counted. */

#ifndef TURNOUT_KEEPING_H
#define TURNOUT_KEEPING_H

#include "held.h"
#include "marks.h"
#include "record.h"

#define MAX_BATCH 1024
#define N_ARMS 3
#define MAX_BOUNDS 32

/* A decision, until it is kept. */
typedef struct {
    uint64_t mark, id_mark; /* the second for an id of the client's own making */
    int has_id_mark;
    Py_ssize_t course;
    int arm;
    size_t line_end; /* in the desk's records */
    double latency_us;
} Made;

/* What was counted since last asked: decisions by course and arm, and by how long they took. */
typedef struct {
    uint64_t *decisions; /* [n_courses, N_ARMS] */
    double bounds[MAX_BOUNDS]; /* seconds, ascending */
    uint64_t within[MAX_BOUNDS + 1];
    int n_bounds;
    double seconds;
} Tally;

/* Whether a decision id ends in the bits of its event's mark, as those that the shim makes do: serving/identity.py's tells. */
static int tells(Text id, uint64_t mark) {
    char tail[17];
    const uint64_t bits = (uint64_t)2 << 62 | mark;
    if (id.size != 36 || id.at[14] != '7') return 0;
    for (int digit = 0; digit < 16; digit++)
        tail[digit + (digit > 3)] = "0123456789abcdef"[bits >> (60 - digit * 4) & 0xf];
    tail[4] = '-';
    return !memcmp(id.at + 19, tail, sizeof tail);
}

/* Note under which mark a decision is found by its own id, where the event's is not enough. */
static void mark_id(Desk *desk, Made *made) {
    made->has_id_mark = 0;
    if (desk->asked.decision_id == ABSENT) return;
    const Text id = desk->json.tokens[desk->asked.decision_id].text;
    if (tells(id, made->mark)) return;
    const Text parts[] = {{"id", 2}, id};
    made->id_mark = hash_mark(&desk->hashed, parts, 2);
    made->has_id_mark = 1;
}

static int is_known(const Marks *marks, uint64_t mark) {
    return find_mark_in(marks->young, marks->mask, mark)->mark || find_mark_in(marks->old, marks->mask, mark)->mark;
}

static int compare_marks(const void *one, const void *other) {
    const uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;
    return (left > right) - (left < right);
}

/* Whether no event was decided before, and none twice now. */
static int are_new(const Marks *marks, const Made *made, size_t n) {
    uint64_t sorted[MAX_BATCH];
    for (size_t i = 0; i < n; i++) {
        if (is_known(marks, made[i].mark)) return 0;
        sorted[i] = made[i].mark;
    }
    if (n > 1) qsort(sorted, n, sizeof(uint64_t), compare_marks);
    for (size_t i = 1; i < n; i++)
        if (sorted[i] == sorted[i - 1]) return 0;
    return 1;
}

static void count_decision(Tally *tally, const Made *made) {
    const double seconds = made->latency_us / 1e6;
    int bucket = 0;
    while (bucket < tally->n_bounds && tally->bounds[bucket] < seconds) bucket++;
    tally->within[bucket]++;
    tally->seconds += seconds;
    tally->decisions[made->course * N_ARMS + made->arm]++;
}

static int read_bounds(Tally *tally, PyObject *bounds) {
    const Py_ssize_t n = PyTuple_Size(bounds);
    if (n > MAX_BOUNDS) {
        PyErr_Format(PyExc_ValueError, "bounds must number at most %d, got %zd", MAX_BOUNDS, n);
        return -1;
    }
    for (tally->n_bounds = 0; tally->n_bounds < (int)n; tally->n_bounds++)
        tally->bounds[tally->n_bounds] = PyFloat_AsDouble(PyTuple_GetItem(bounds, tally->n_bounds));
    return PyErr_Occurred() ? -1 : 0;
}

/* What was counted since last asked: decisions by what their course and arm are counted under, numbers of decisions by their
   seconds, and the sum of those. */
static PyObject *take_counts(Tally *tally, const Course *courses, Py_ssize_t n_courses) {
    PyObject *decisions = PyList_New(0), *within = PyList_New(0), *each = NULL;
    int failed = !decisions || !within;
    for (Py_ssize_t i = 0; !failed && i < n_courses * N_ARMS; i++) {
        if (!tally->decisions[i]) continue;
        each = Py_BuildValue("(OK)", PyTuple_GetItem(courses[i / N_ARMS].keys, i % N_ARMS),
                             (unsigned long long)tally->decisions[i]);
        failed = !each || PyList_Append(decisions, each) < 0;
        Py_XDECREF(each);
    }
    for (int i = 0; !failed && i <= tally->n_bounds; i++) {
        each = PyLong_FromUnsignedLongLong(tally->within[i]);
        failed = !each || PyList_Append(within, each) < 0;
        Py_XDECREF(each);
    }
    PyObject *told = failed ? NULL : Py_BuildValue("(OOd)", decisions, within, tally->seconds);
    Py_XDECREF(decisions);
    Py_XDECREF(within);
    if (!told) return NULL;
    memset(tally->decisions, 0, (size_t)n_courses * N_ARMS * sizeof(uint64_t));
    memset(tally->within, 0, sizeof tally->within);
    tally->seconds = 0.0;
    return told;
}

/* Fetch ahead where a mark is looked for: the memory of many decisions is far away. */
static void fetch_mark(const Marks *marks, uint64_t mark) {
#if defined(__GNUC__)
    const size_t at = find_home(marks->mask, mark);
    __builtin_prefetch(&marks->young[at]);
    __builtin_prefetch(&marks->old[at]);
#else
    (void)marks, (void)mark;
#endif
}

/* Keep all decisions of a request, or none: where an event is known already, or its line has no room, nothing is done. */
static int keep(const Desk *desk, const Made *made, size_t n, Marks *marks, HeldLines *held, Tally *tally) {
    if (held->lines.size + desk->records.size > held->room || !are_new(marks, made, n)
        || !reserve_lines(held, n, desk->records.size))
        return 0;
    size_t begin = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t place = hold_line(held, desk->records.bytes + begin, made[i].line_end - begin);
        begin = made[i].line_end;
        remember(marks, made[i].mark, place);
        if (made[i].has_id_mark) remember(marks, made[i].id_mark, place);
        count_decision(tally, &made[i]);
    }
    return 1;
}

#endif
