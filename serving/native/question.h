/* A request as it is asked of one course: what it says, checked as serving/intake.py and features/records.py check it.

   Functions return 1 where all is well, 0 where the request is not for the fast path (it may be wrong, or right in a way
   that is not read here), and -1 with an error set. */

#ifndef TURNOUT_QUESTION_H
#define TURNOUT_QUESTION_H

#include "course.h"
#include "instants.h"
#include "json.h"

#define MAX_IDENTIFIER_BYTES 512
#define ABSENT (-1)
#define NEVER INT64_MAX
#define ERROR_RATE 3 /* of the state's numbers the one with bounds */

/* Tokens of the fields of an object, ABSENT where they are not there. */
typedef struct {
    int32_t id, source, type, version, time, key, classification, data;
} EventFields;

typedef struct {
    Py_ssize_t destination; /* by its place among the course's */
    int is_healthy, is_told; /* whether the request says how it is */
    int64_t observed_us; /* of its state, NEVER where that is not dated */
    const double *live;  /* what is known of it where the request says nothing, or NULL */
    int32_t state[N_STATE];
} Candidate;

typedef struct {
    Course *course;
    EventFields event;
    int32_t decision_id;
    int64_t at_us;
    int64_t oldest_us; /* of the states that were used, NEVER where none is dated */
    Field field;
    Candidate candidates[MAX_CANDIDATES];
    int32_t *event_tokens;     /* [n_event] */
    int32_t *candidate_tokens; /* [n, n_candidate] */
    int32_t *measure_tokens;   /* [n, n_measures] */
    Text excluded[MAX_CANDIDATES]; /* the rule in JSON, without text where it may serve */
} Question;

static int is_key(const Token *key, const char *name) {
    return key->text.size == strlen(name) && !memcmp(key->text.at, name, key->text.size);
}

static int is_identifier(const Json *json, int32_t token) {
    if (token == ABSENT) return 0;
    const Token *found = &json->tokens[token];
    return found->kind == STRING && found->text.size >= 1 && found->text.size <= MAX_IDENTIFIER_BYTES;
}

/* Whether there is a scalar: an event's other attributes count as missing. */
static int is_scalar(const Json *json, int32_t token) {
    if (token == ABSENT) return 0;
    const Kind kind = json->tokens[token].kind;
    return kind != NIL && kind != OBJECT && kind != ARRAY;
}

/* The token of an optional text, ABSENT where it is null. */
static int32_t drop_nil(const Json *json, int32_t token) {
    return token != ABSENT && json->tokens[token].kind == NIL ? ABSENT : token;
}

static int read_event(const Json *json, int32_t object, EventFields *event) {
    *event = (EventFields){ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT};
    if (json->tokens[object].kind != OBJECT) return 0;
    for (int32_t key = object + 1; key < json->tokens[object].next; key = json->tokens[key + 1].next) {
        const Token *name = &json->tokens[key];
        if (is_key(name, "id")) event->id = key + 1;
        else if (is_key(name, "source")) event->source = key + 1;
        else if (is_key(name, "type")) event->type = key + 1;
        else if (is_key(name, "specversion")) event->version = key + 1;
        else if (is_key(name, "time")) event->time = drop_nil(json, key + 1);
        else if (is_key(name, "partitionkey")) event->key = drop_nil(json, key + 1);
        else if (is_key(name, "dataclassification")) event->classification = drop_nil(json, key + 1);
        else if (is_key(name, "data")) event->data = key + 1;
    }
    int64_t us;
    return is_identifier(json, event->id) && is_identifier(json, event->source) && is_identifier(json, event->type)
           && event->version != ABSENT && json->tokens[event->version].kind == STRING
           && is_key(&json->tokens[event->version], "1.0") && (event->key == ABSENT || is_identifier(json, event->key))
           && (event->classification == ABSENT || json->tokens[event->classification].kind == STRING)
           && (event->time == ABSENT
               || (json->tokens[event->time].kind == STRING && read_instant(json->tokens[event->time].text, &us)));
}

/* Note the tokens of the names that are read of an object; `scalars` says that it may hold nothing else, `numbers` that
   those must be numbers or null. */
static int fill_slots(const Json *json, int32_t object, const Names *names, int32_t *slots, int scalars, int numbers) {
    if (object == ABSENT) return 1;
    if (json->tokens[object].kind != OBJECT) return 0;
    for (int32_t key = object + 1; key < json->tokens[object].next; key = json->tokens[key + 1].next) {
        const Token *value = &json->tokens[key + 1];
        if (scalars && (value->kind == OBJECT || value->kind == ARRAY)) return 0;
        if (numbers && value->kind != NUMBER && value->kind != NIL) return 0;
        const int32_t slot = find_hashed(names, json->tokens[key].text, json->tokens[key].hash);
        if (slot >= 0) slots[slot] = key + 1;
    }
    return 1;
}

static int read_state(const Json *json, int32_t object, Candidate *candidate, const Course *course, int32_t *measures) {
    static const char *const STATE[N_STATE] = {"queue_depth", "in_flight", "latency_ms", "error_rate", "price_usd"};
    if (json->tokens[object].kind == NIL) return 1;
    if (json->tokens[object].kind != OBJECT) return 0;
    candidate->is_told = 1;
    for (int32_t key = object + 1; key < json->tokens[object].next; key = json->tokens[key + 1].next) {
        const Token *name = &json->tokens[key], *value = &json->tokens[key + 1];
        int field = 0;
        while (field < N_STATE && !is_key(name, STATE[field])) field++;
        if (field < N_STATE) {
            if (value->kind == NIL) continue;
            if (value->kind != NUMBER) return 0;
            if (field == ERROR_RATE && !(value->value >= 0.0 && value->value <= 1.0)) return 0;
            candidate->state[field] = key + 1;
        } else if (is_key(name, "healthy")) {
            if (value->kind != TRUE && value->kind != FALSE) return 0;
            candidate->is_healthy = value->kind == TRUE;
        } else if (is_key(name, "observed_at")) {
            if (value->kind == NIL) continue;
            if (value->kind != STRING || !read_instant(value->text, &candidate->observed_us)) return 0;
        } else if (is_key(name, "measures")) {
            if (!fill_slots(json, key + 1, &course->measures, measures, 1, 1)) return 0;
        }
    }
    return 1;
}

#define UNTOLD(place) (Candidate){place, 1, 0, NEVER, NULL, {ABSENT, ABSENT, ABSENT, ABSENT, ABSENT}}

/* Settle which state of a candidate is used: the request's, else what is known of it, neither when too old. */
static void settle_state(Question *asked, Py_ssize_t place) {
    const Course *course = asked->course;
    Candidate *candidate = &asked->candidates[place];
    const int is_stale = candidate->observed_us != NEVER
                         && (double)(asked->at_us - candidate->observed_us) / 1e6 > course->max_age_seconds;
    if (!candidate->is_told || is_stale) {
        const Py_ssize_t row = candidate->destination * (N_LIVE + course->n_measures);
        *candidate = UNTOLD(candidate->destination);
        for (int32_t i = 0; i < course->n_measures; i++)
            asked->measure_tokens[place * course->n_measures + i] = ABSENT;
        if (course->live && course->live[row] == 1.0) {
            candidate->live = course->live + row;
            candidate->observed_us = (int64_t)candidate->live[1];
            candidate->is_healthy = candidate->live[2] != 0.0;
        }
    }
    if (candidate->observed_us < asked->oldest_us) asked->oldest_us = candidate->observed_us;
}

static int read_candidate(const Json *json, int32_t object, Question *asked) {
    const Course *course = asked->course;
    const Py_ssize_t place = asked->field.n;
    if (place == MAX_CANDIDATES || json->tokens[object].kind != OBJECT) return 0;
    Candidate *candidate = &asked->candidates[place];
    int32_t *slots = asked->candidate_tokens + place * course->n_candidate;
    int32_t *measures = asked->measure_tokens + place * course->n_measures;
    *candidate = UNTOLD(-1);
    for (int32_t i = 0; i < course->n_candidate; i++) slots[i] = ABSENT;
    for (int32_t i = 0; i < course->n_measures; i++) measures[i] = ABSENT;
    for (int32_t key = object + 1; key < json->tokens[object].next; key = json->tokens[key + 1].next) {
        const Token *name = &json->tokens[key], *value = &json->tokens[key + 1];
        if (is_key(name, "destination")) {
            if (value->kind != STRING) return 0;
            candidate->destination = find_hashed(&course->destinations, value->text, value->hash);
        } else if (is_key(name, "attributes")) {
            if (!fill_slots(json, key + 1, &course->candidate, slots, 1, 0)) return 0;
        } else if (is_key(name, "state")) {
            if (!read_state(json, key + 1, candidate, course, measures)) return 0;
        }
    }
    if (candidate->destination < 0) return 0; /* none, or not one of the stream's */
    for (Py_ssize_t i = 0; i < place; i++)
        if (asked->candidates[i].destination == candidate->destination) return 0;
    settle_state(asked, place);
    asked->field.n++;
    return 1;
}

/* Without candidates, every destination of the stream is one. */
static int offer_all(Question *asked) {
    const Course *course = asked->course;
    if (course->n_destinations > MAX_CANDIDATES) return 0;
    asked->field.n = course->n_destinations;
    for (Py_ssize_t i = 0; i < asked->field.n * course->n_candidate; i++) asked->candidate_tokens[i] = ABSENT;
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        asked->candidates[i] = UNTOLD(i);
        settle_state(asked, i);
    }
    return 1;
}

static int read_candidates(const Json *json, int32_t array, Question *asked) {
    asked->field.n = 0;
    asked->oldest_us = NEVER;
    if (array == ABSENT || json->tokens[array].kind == NIL) return offer_all(asked);
    if (json->tokens[array].kind != ARRAY || json->tokens[array].next == array + 1) return 0;
    for (int32_t token = array + 1; token < json->tokens[array].next; token = json->tokens[token].next)
        if (!read_candidate(json, token, asked)) return 0;
    return 1;
}

/* Find who may serve the event; the course's mask tells, for a classification, each destination's rule or None. */
static int mask_candidates(const Json *json, Question *asked) {
    static const Text UNHEALTHY = {"\"unhealthy\"", 11};
    PyObject *rules = NULL;
    if (asked->event.classification != ABSENT) {
        const Text text = json->tokens[asked->event.classification].text;
        rules = PyObject_CallFunction(asked->course->mask, "s#", text.at, (Py_ssize_t)text.size);
        if (!rules) return -1;
        if (PyList_SetItem(asked->course->kept, RULES, rules) < 0) return -1; /* it is the list's now, until the next event */
        if (!PyTuple_Check(rules) || PyTuple_Size(rules) != asked->course->n_destinations) return 0;
    }
    asked->field.n_eligible = 0;
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        const Candidate *candidate = &asked->candidates[i];
        asked->excluded[i] = candidate->is_healthy ? (Text){NULL, 0} : UNHEALTHY;
        PyObject *rule = rules ? PyTuple_GetItem(rules, candidate->destination) : Py_None;
        if (rule != Py_None && as_text(rule, &asked->excluded[i]) < 0) return -1;
        asked->field.eligible[i] = !asked->excluded[i].at;
        asked->field.n_eligible += asked->field.eligible[i];
    }
    return asked->field.n_eligible > 0;
}

/* Read a request: a question with its event, or (`is_bare`) the event alone. */
static int read_question(const Json *json, int32_t request, int is_bare, const Names *types, Course *courses,
                         Question *asked) {
    int32_t event = is_bare ? request : ABSENT, candidates = ABSENT;
    asked->decision_id = ABSENT;
    if (json->tokens[request].kind != OBJECT) return 0;
    for (int32_t key = request + 1; !is_bare && key < json->tokens[request].next; key = json->tokens[key + 1].next) {
        const Token *name = &json->tokens[key];
        if (is_key(name, "event")) event = key + 1;
        else if (is_key(name, "candidates")) candidates = key + 1;
        else if (is_key(name, "decision_id")) asked->decision_id = drop_nil(json, key + 1);
        else return 0;
    }
    if (event == ABSENT || (asked->decision_id != ABSENT && !is_identifier(json, asked->decision_id))
        || !read_event(json, event, &asked->event))
        return 0;
    const int32_t course = find_name(types, json->tokens[asked->event.type].text);
    if (course < 0) return 0;
    asked->course = &courses[course];
    for (int32_t i = 0; i < asked->course->n_event; i++) asked->event_tokens[i] = ABSENT;
    return fill_slots(json, asked->event.data, &asked->course->event, asked->event_tokens, 0, 0)
           && read_candidates(json, candidates, asked);
}

#endif
