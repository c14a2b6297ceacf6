/* The arm and the destination that an event gets, drawn by keyed hashes as features/randomness.py draws them. */

#ifndef TURNOUT_CHOICE_H
#define TURNOUT_CHOICE_H

#include "blake2b.h"
#include "scoring.h"

#define MARK_BITS 62

/* What was decided: whose arm, which candidate, from which distribution. */
typedef struct {
    int arm;          /* 0 for the static routes, 1 for the champion, 2 for the challenger */
    Role *role;       /* of the arm; NULL for the static routes */
    Py_ssize_t chosen;
    const double *shares, *mixture;
    double arm_probability;
    Text unit;
} Choice;

static void hash_part(Output *out, Text part) {
    const char length[4] = {(char)(part.size >> 24), (char)(part.size >> 16), (char)(part.size >> 8), (char)part.size};
    put(out, length, sizeof length);
    put_text(out, part);
}

static uint64_t hash_parts(Output *out, const char *person, const Text *parts, int n) {
    out->size = 0;
    for (int i = 0; i < n; i++) hash_part(out, parts[i]);
    return blake2b((const uint8_t *)out->bytes, out->size, person);
}

static double draw(Output *out, const Text *parts, int n) {
    static const char NOBODY[PERSON_BYTES] = {0};
    return (double)(hash_parts(out, NOBODY, parts, n) >> 11) / 9007199254740992.0;
}

/* 62 bits of some texts, as serving/identity.py's fingerprint draws them. */
static uint64_t hash_mark(Output *out, const Text *parts, int n) {
    return hash_parts(out, "turnout-decision", parts, n) & (((uint64_t)1 << MARK_BITS) - 1);
}

/* The mark of an event. */
static uint64_t find_mark(Desk *desk) {
    const Text parts[] = {desk->asked.course->name, desk->json.tokens[desk->asked.event.source].text,
                          desk->json.tokens[desk->asked.event.id].text};
    return hash_mark(&desk->hashed, parts, 3);
}

/* The static routes' order for this event; NULL where the attribute that picks it is no text. */
static const Order *find_order(const Desk *desk) {
    const Course *course = desk->asked.course;
    const int32_t token = course->by_slot < 0 ? ABSENT : desk->asked.event_tokens[course->by_slot];
    if (course->by_slot < 0) return &course->orders[0];
    if (!is_scalar(&desk->json, token)) return &course->orders[1];
    if (desk->json.tokens[token].kind != STRING) return NULL;
    const int32_t route = find_name(&course->routes, desk->json.tokens[token].text);
    return route < 0 ? &course->orders[0] : &course->orders[2 + route];
}

/* The place of every candidate in the order of the static routes, the order's length for one that is not in it. */
static void place_candidates(const Question *asked, const Order *order, Py_ssize_t *places) {
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        places[i] = 0;
        while (places[i] < order->n && order->places[places[i]] != asked->candidates[i].destination) places[i]++;
    }
}

static void choose_statically(const Question *asked, const Py_ssize_t *places, double epsilon, double *shares) {
    Py_ssize_t first = -1;
    for (Py_ssize_t i = 0; i < asked->field.n; i++)
        if (asked->field.eligible[i] && (first < 0 || places[i] < places[first])) first = i;
    be_certain(&asked->field, first, shares);
    floor_shares(&asked->field, epsilon, shares);
}

/* What the arm of a canary is drawn for. */
static Text name_unit(Desk *desk, char *unit) {
    const EventFields *event = &desk->asked.event;
    if (desk->asked.course->is_sticky && event->key != ABSENT) return desk->json.tokens[event->key].text;
    const Text source = desk->json.tokens[event->source].text, id = desk->json.tokens[event->id].text;
    memcpy(unit, source.at, source.size);
    unit[source.size] = '/';
    memcpy(unit + source.size + 1, id.at, id.size);
    return (Text){unit, source.size + 1 + id.size};
}

/* Draw the arm, then the candidate from that arm's distribution, as serving/decider.py does. */
static int draw_choice(Desk *desk, const double *statically, double *mixed, char *unit, Choice *choice) {
    Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n;
    const Text source = desk->json.tokens[desk->asked.event.source].text, id = desk->json.tokens[desk->asked.event.id].text;
    choice->arm = course->champion >= 0;
    choice->role = choice->arm ? &course->roles[course->champion] : NULL;
    choice->shares = choice->mixture = choice->role ? choice->role->shares : statically;
    choice->arm_probability = 1.0;
    choice->unit = name_unit(desk, unit);
    if (course->challenger >= 0) {
        Role *challenger = &course->roles[course->challenger];
        const Text parts[] = {{"arm", 3}, course->challenger_digest, course->name, choice->unit};
        for (Py_ssize_t i = 0; i < n; i++) {
            mixed[i] = 0.0 + (1.0 - course->share) * choice->shares[i];
            mixed[i] = mixed[i] + course->share * challenger->shares[i];
        }
        choice->mixture = mixed;
        choice->arm_probability = 1.0 - course->share;
        if (draw(&desk->hashed, parts, 4) < course->share) {
            choice->arm = 2;
            choice->role = challenger;
            choice->shares = challenger->shares;
            choice->arm_probability = course->share;
        }
    }
    const Text parts[] = {{"action", 6}, course->generation, course->name, source, id};
    choice->chosen = choose(choice->shares, n, draw(&desk->hashed, parts, 5));
    return choice->chosen >= 0 && choice->mixture[choice->chosen] > 0.0;
}

#endif
