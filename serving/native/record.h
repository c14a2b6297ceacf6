/* What is logged of a decision and what is answered: features/records.py's Decision and serving/answer.py's Answer in JSON,
   field by field in their order, without what is at its default. */

#ifndef TURNOUT_RECORD_H
#define TURNOUT_RECORD_H

#include <time.h>

#include "choice.h"
#include "crc32.h"

/* When a request was begun, and the instant it is decided at, once for all that it holds. */
typedef struct {
    Text at_text; /* in JSON */
    int64_t at_us;
    struct timespec started;
    char quoted[MAX_INSTANT_TEXT];
} Moment;

static const Text ARMS[] = {{"static", 6}, {"champion", 8}, {"challenger", 10}};

static void put_quoted(Output *out, Text text) {
    PUT(out, "\"");
    put_text(out, text);
    PUT(out, "\"");
}

/* Say who the decision is: as the request does, or by a UUID of version 7, as serving/identity.py makes it of an instant and the bits
   of an event. */
static void write_identity(Desk *desk, uint64_t mark, const Moment *moment) {
    static const char HEX[] = "0123456789abcdef";
    if (desk->asked.decision_id != ABSENT) {
        const Text told = desk->json.tokens[desk->asked.decision_id].text;
        desk->identity = (Text){told.at - 1, told.size + 2}; /* with its quotes */
        return;
    }
    const int64_t at_ms = moment->at_us / 1000 - (moment->at_us % 1000 < 0); /* rounded down */
    const uint64_t halves[] = {((uint64_t)at_ms & 0xffffffffffffu) << 16 | 0x7000u | mark >> 50, (uint64_t)2 << 62 | mark};
    char *at = desk->identity_text;
    *at++ = '"';
    for (int digit = 0; digit < 32; digit++) {
        if (digit == 8 || digit == 12 || digit == 16 || digit == 20) *at++ = '-';
        *at++ = HEX[halves[digit / 16] >> (60 - digit % 16 * 4) & 0xf];
    }
    *at++ = '"';
    desk->identity = (Text){desk->identity_text, IDENTITY_TEXT};
}

static void put_reason(Output *out, const Desk *desk, const Choice *choice) {
    const Course *course = desk->asked.course;
    const Field *field = &desk->asked.field;
    PUT(out, "\"");
    put_text(out, choice->arm ? ARMS[choice->arm] : course->static_reason);
    if (choice->arm && find_likeliest(choice->shares, field->n) != choice->chosen) {
        PUT(out, ": explored");
        if (choice->role->tariff.n) PUT(out, ", or drawn between equals within the limits");
    } else if (choice->arm) {
        PUT(out, ": highest expected value");
        if (choice->role->tariff.n) PUT(out, " within the limits");
        if (course->exploration.is_bounded && field->n_eligible > 1 && is_sure(choice->shares, field->n)) PUT(out, ", not explored");
    }
    PUT(out, "\"");
}

static void put_destinations(Output *out, const Question *asked, const Py_ssize_t *places, Py_ssize_t n) {
    PUT(out, "[");
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i) PUT(out, ",");
        put_text(out, asked->course->destination_texts[asked->candidates[places ? places[i] : i].destination]);
    }
    PUT(out, "]");
}

static void put_policies(Output *out, const Question *asked, const double *statically) {
    PUT(out, ",\"policies\":{\"static\":");
    put_doubles(out, statically, asked->field.n);
    for (int r = 0; r < asked->course->n_roles; r++) {
        const Role *role = &asked->course->roles[r];
        PUT(out, ",");
        put_quoted(out, role->name);
        PUT(out, ":");
        put_doubles(out, role->shares, asked->field.n);
    }
    PUT(out, "}");
}

static void put_predictions(Output *out, const Question *asked) {
    if (!asked->course->n_roles) return;
    PUT(out, ",\"predictions\":{");
    for (int r = 0; r < asked->course->n_roles; r++) {
        const Role *role = &asked->course->roles[r];
        if (r) PUT(out, ",");
        put_quoted(out, role->name);
        for (Py_ssize_t o = 0; o < role->n_outputs; o++) {
            put(out, o ? "," : ":{", o ? 1 : 2);
            put_text(out, role->outputs[o]);
            PUT(out, ":");
            put_doubles(out, role->predicted + o * asked->field.n, asked->field.n);
        }
        PUT(out, "}");
    }
    PUT(out, "}");
}

static void put_excluded(Output *out, const Question *asked) {
    if (asked->field.n_eligible == asked->field.n) return;
    const char *before = ",\"excluded\":{";
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        if (asked->field.eligible[i]) continue;
        put(out, before, strlen(before));
        put_text(out, asked->course->destination_texts[asked->candidates[i].destination]);
        PUT(out, ":");
        put_text(out, asked->excluded[i]);
        before = ",";
    }
    PUT(out, "}");
}

static void put_arm(Output *out, const Choice *choice) {
    if (choice->arm) {
        PUT(out, ",\"arm\":");
        put_quoted(out, ARMS[choice->arm]);
    }
    if (choice->arm_probability != 1.0) {
        PUT(out, ",\"arm_probability\":");
        put_double(out, choice->arm_probability);
    }
    PUT(out, ",\"arm_unit\":");
    put_quoted(out, choice->unit);
}

/* The eligible candidates in the order to try them, as serving/answer.py's rank sorts them; returns how many. */
static Py_ssize_t rank(const Question *asked, const Choice *choice, const Py_ssize_t *routes, Py_ssize_t *ranked) {
    const double *values = choice->role ? choice->role->predicted : NULL;
    Py_ssize_t n = 0;
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        if (!asked->field.eligible[i]) continue;
        Py_ssize_t place = n++;
        for (; place > 0; place--) {
            const Py_ssize_t other = ranked[place - 1];
            if (other == choice->chosen) break;
            if (i != choice->chosen) {
                if (choice->mixture[other] > choice->mixture[i]) break;
                if (choice->mixture[other] == choice->mixture[i]) {
                    if (values && values[other] > values[i]) break;
                    if ((!values || values[other] == values[i]) && routes[other] <= routes[i]) break;
                }
            }
            ranked[place] = other;
        }
        ranked[place] = i;
    }
    return n;
}

static void write_answer(Desk *desk, const Choice *choice, const Py_ssize_t *routes, const Moment *moment) {
    const Question *asked = &desk->asked;
    const Course *course = asked->course;
    Output *out = &desk->answers;
    Py_ssize_t ranked[MAX_CANDIDATES];
    const Text digests[] = {{NULL, 0}, course->champion_digest, course->challenger_digest};
    PUT(out, "{\"decision_id\":");
    put_text(out, desk->identity);
    PUT(out, ",\"stream\":");
    put_text(out, course->name_text);
    PUT(out, ",\"destinations\":");
    put_destinations(out, asked, ranked, rank(asked, choice, routes, ranked));
    PUT(out, ",\"reason\":");
    put_reason(out, desk, choice);
    PUT(out, ",\"propensity\":");
    put_double(out, choice->mixture[choice->chosen]);
    PUT(out, ",\"arm\":");
    put_quoted(out, ARMS[choice->arm]);
    PUT(out, ",\"mode\":");
    put_quoted(out, course->mode);
    PUT(out, ",\"generation\":");
    put_text(out, course->generation);
    PUT(out, ",\"digest\":");
    if (choice->arm) put_quoted(out, digests[choice->arm]);
    else PUT(out, "null");
    PUT(out, ",\"decided_at\":");
    put_text(out, moment->at_text);
    PUT(out, "}");
}

/* The first part of a record, which tells whose decision it is; serving/shim.py reads it alone to remember decisions. */
static void put_origin(Output *out, const Desk *desk, const Moment *moment) {
    const EventFields *event = &desk->asked.event;
    PUT(out, "{\"record\":\"decision\",\"decision_id\":");
    put_text(out, desk->identity);
    PUT(out, ",\"event_id\":");
    put_quoted(out, desk->json.tokens[event->id].text);
    PUT(out, ",\"event_source\":");
    put_quoted(out, desk->json.tokens[event->source].text);
    PUT(out, ",\"event_type\":");
    put_quoted(out, desk->json.tokens[event->type].text);
    PUT(out, ",\"stream\":");
    put_text(out, desk->asked.course->name_text);
    PUT(out, ",\"decided_at\":");
    put_text(out, moment->at_text);
}

static void put_choice(Output *out, const Desk *desk, const Choice *choice) {
    const Question *asked = &desk->asked;
    PUT(out, ",\"mode\":");
    put_quoted(out, asked->course->mode);
    PUT(out, ",\"reason\":");
    put_reason(out, desk, choice);
    PUT(out, ",\"assigned\":");
    put_text(out, asked->course->destination_texts[asked->candidates[choice->chosen].destination]);
    PUT(out, ",\"propensity\":");
    put_double(out, choice->mixture[choice->chosen]);
    PUT(out, ",\"destinations\":");
    put_destinations(out, asked, NULL, asked->field.n);
    PUT(out, ",\"mixture\":");
    put_doubles(out, choice->mixture, asked->field.n);
}

static void put_features(Output *out, const Desk *desk) {
    const EventFields *event = &desk->asked.event;
    if (event->time != ABSENT) {
        PUT(out, ",\"event_time\":");
        put_quoted(out, desk->json.tokens[event->time].text);
    }
    PUT(out, ",\"feature_set\":");
    put_quoted(out, desk->asked.course->feature_set);
    PUT(out, ",\"numbers\":[");
    put(out, desk->rows.bytes, desk->rows.size);
    PUT(out, "]");
    if (desk->asked.field.n > 1) put(out, desk->asked.course->shared_text, strlen(desk->asked.course->shared_text));
    PUT(out, ",\"categories\":[");
    put(out, desk->categories.bytes, desk->categories.size);
    PUT(out, "]");
}

/* Put the checksum of the line that begins there before it, and its end behind it. */
static void seal_line(Output *out, size_t begin) {
    static const char HEX[] = "0123456789abcdef";
    if (out->failed) return;
    char *line = out->bytes + begin;
    const uint32_t crc = crc32(line + 9, out->size - begin - 9);
    for (int digit = 0; digit < 8; digit++) line[digit] = HEX[crc >> (28 - 4 * digit) & 0xf];
    PUT(out, "\n");
}

/* Microseconds since 1970. */
static int64_t read_clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static double count_us(const struct timespec *started) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - started->tv_sec) * 1e6 + (double)(now.tv_nsec - started->tv_nsec) / 1e3;
}

/* Write the record as a line of the spool (see features/spool.py), and return how long the decision took. */
static double write_record(Desk *desk, const Choice *choice, const double *statically, const Moment *moment) {
    const Question *asked = &desk->asked;
    Output *out = &desk->records;
    const size_t begin = out->size;
    PUT(out, "00000000 "); /* for the checksum */
    put_origin(out, desk, moment);
    put_choice(out, desk, choice);
    put_policies(out, asked, statically);
    put_features(out, desk);
    put_predictions(out, asked);
    put_excluded(out, asked);
    put_arm(out, choice);
    put_text(out, asked->course->tail);
    if (asked->oldest_us != NEVER) {
        PUT(out, ",\"state_age_ms\":");
        put_double(out, (double)(moment->at_us - asked->oldest_us) / 1000.0);
    }
    const double latency_us = count_us(&moment->started);
    PUT(out, ",\"latency_us\":");
    put_double(out, latency_us);
    PUT(out, "}");
    seal_line(out, begin);
    return latency_us;
}

#endif
