/* One body after the other: from bytes to the answer and the lines that are held, taken whole or not at all. */

#ifndef TURNOUT_DECIDING_H
#define TURNOUT_DECIDING_H

#include <time.h>

#include "content.h"
#include "http.h"
#include "keeping.h"

typedef struct {
    PyObject_HEAD
    PyObject *kept; /* a list of what the names of types lead to */
    Course *courses;
    Py_ssize_t n_courses;
    Names types;
    Desk desk;
    Made *made; /* [MAX_BATCH] */
    size_t n_made;
    Output replies;
    Tally tally;
    int is_busy;
} FastPath;

#define NOW INT64_MIN /* for an instant that is read when a request is decided */

/* How a request is to be decided, from the arguments that `answer` and `reply` share. */
typedef struct {
    Moment moment;
    Text times;
    Marks *marks;
    HeldLines *held;
} Terms;

/* Decide one request; 0 where the whole path is to take it, maybe with an error set that tells why. */
static int decide_one(FastPath *self, int32_t request, int is_bare, const Terms *terms) {
    Desk *desk = &self->desk;
    const Moment *moment = &terms->moment;
    double statically[MAX_CANDIDATES], mixed[MAX_CANDIDATES];
    Py_ssize_t places[MAX_CANDIDATES];
    char unit[2 * MAX_IDENTIFIER_BYTES + 1];
    Choice choice;
    desk->asked.at_us = moment->at_us;
    if (!read_question(&desk->json, request, is_bare, &self->types, self->courses, &desk->asked)) return 0;
    Course *course = desk->asked.course;
    open_debts(course, desk->n_requests);
    const Order *order = find_order(desk);
    if (!order || mask_candidates(&desk->json, &desk->asked) != 1 || !read_event_cells(desk) || read_content(desk) != 1
        || write_numbers(desk) != 1 || !write_categories(desk))
        return 0;
    place_candidates(&desk->asked, order, places);
    choose_statically(&desk->asked, places, course->exploration.static_epsilon, statically);
    for (int r = 0; r < course->n_roles; r++)
        if (score_role(desk, &course->roles[r]) != 1) return 0;
    if (!draw_choice(desk, statically, mixed, unit, &choice)) return 0;
    if (choice.role) charge(&choice.role->tariff, choice.chosen);
    Made *made = &self->made[self->n_made++];
    *made = (Made){.mark = find_mark(desk), .course = course - self->courses, .arm = choice.arm};
    fetch_mark(terms->marks, made->mark);
    mark_id(desk, made);
    write_identity(desk, made->mark, moment);
    write_answer(desk, &choice, places, moment);
    made->latency_us = write_record(desk, &choice, statically, moment);
    made->line_end = desk->records.size;
    return !(desk->records.failed || desk->answers.failed || desk->rows.failed || desk->categories.failed || desk->hashed.failed);
}

/* Decide all requests of a body; a batch is taken whole or not at all. */
static int decide_all(FastPath *self, int is_bare, const Terms *terms) {
    const Json *json = &self->desk.json;
    Output *answers = &self->desk.answers;
    if (json->tokens[0].kind != ARRAY) return decide_one(self, 0, is_bare, terms);
    PUT(answers, "[");
    for (int32_t request = 1; request < json->tokens[0].next; request = json->tokens[request].next) {
        if (self->n_made) PUT(answers, ",");
        if (self->n_made == MAX_BATCH || !decide_one(self, request, is_bare, terms)) return 0;
    }
    PUT(answers, "]");
    return self->n_made > 0 && !answers->failed; /* an empty batch is for the whole path */
}

/* Begin with what a request brings; memory that once failed may be there again. */
static void clear_desk(FastPath *self, Text times) {
    Desk *desk = &self->desk;
    Output *outputs[] = {&desk->rows, &desk->categories, &desk->records, &desk->answers, &desk->hashed};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) outputs[i]->failed = 0;
    desk->records.size = desk->answers.size = 0;
    desk->times = (const double *)times.at;
    desk->n_times = (Py_ssize_t)(times.size / sizeof(double));
    desk->n_requests++;
    self->n_made = 0;
}

/* Whether bytes are UTF-8, by Python's own reader. */
static int is_unicode(const char *bytes, Py_ssize_t n) {
    PyObject *text = PyUnicode_DecodeUTF8(bytes, n, NULL);
    const int is_sound = text != NULL;
    Py_XDECREF(text);
    PyErr_Clear();
    return is_sound;
}

/* Decide what a body asks and keep it; 0 where the whole path is to take it. The answers are the desk's. */
static int decide_body(FastPath *self, Text body, int is_bare, Terms *terms) {
    if (self->is_busy) return 0; /* a model runs Python, and with it somebody who asks as well: nothing of the desk is touched */
    self->is_busy = 1;
    terms->moment.at_text = (Text){terms->moment.quoted, write_instant(terms->moment.at_us, terms->moment.quoted)};
    clear_desk(self, terms->times);
    const int is_done = read_json(&self->desk.json, body.at, body.size)
                        && (self->desk.json.is_ascii || is_unicode(body.at, (Py_ssize_t)body.size))
                        && decide_all(self, is_bare, terms)
                        && keep(&self->desk, self->made, self->n_made, terms->marks, terms->held, &self->tally);
    for (size_t i = 0; is_done && i < self->n_made; i++) close_debts(&self->courses[self->made[i].course]);
    trim_json(&self->desk.json);
    trim(&self->desk.records);
    self->is_busy = 0;
    PyErr_Clear(); /* what a model raised it raises again where it is told of */
    return is_done;
}

/* A tuple of two new references, which it takes also where there is none. */
static PyObject *pair_up(PyObject *one, PyObject *other) {
    PyObject *pair = one && other ? PyTuple_Pack(2, one, other) : NULL;
    Py_XDECREF(one);
    Py_XDECREF(other);
    return pair;
}

/* Reply to the requests that `sent` begins with, up to one that is not whole or is for the whole path: the replies one after the
   other and where the requests end, or None without any; NULL with an error set. */
static PyObject *reply_to(FastPath *self, const Terms *terms, Text sent, PyObject *heads, Text head) {
    Output *replies = &self->replies;
    Text left = sent, body;
    int is_bare;
    if (self->is_busy) Py_RETURN_NONE; /* as in decide_body: the replies are those of the call under way */
    replies->size = 0;
    replies->failed = 0;
    while (left.size && find_body(left, heads, &body, &is_bare) == 1) {
        const size_t n_before = replies->size;
        Terms one = *terms;
        clock_gettime(CLOCK_MONOTONIC, &one.moment.started);
        if (one.moment.at_us == NOW) one.moment.at_us = read_clock_us();
        if (!decide_body(self, body, is_bare, &one)) break;
        put_reply(replies, head, &self->desk.answers);
        if (replies->failed) { /* decided all the same: the whole path will answer it as one that is asked again */
            replies->size = n_before;
            break;
        }
        left = (Text){body.at + body.size, left.size - (size_t)(body.at + body.size - left.at)};
    }
    PyErr_Clear();
    if (!replies->size) Py_RETURN_NONE;
    return pair_up(PyBytes_FromStringAndSize(replies->bytes, (Py_ssize_t)replies->size), PyLong_FromSize_t(sent.size - left.size));
}

#endif
