/* From values to a distribution and a choice: the arithmetic of models/policy.py, operation by operation, for its bits. */

#ifndef TURNOUT_POLICY_H
#define TURNOUT_POLICY_H

#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_CANDIDATES 128 /* numpy adds up to so many numbers in the order of sum_pairwise */

typedef enum { CERTAIN, EPSILON, SQUARECB } Exploring;

typedef struct {
    Exploring kind;
    double epsilon, gamma, value_range, static_epsilon;
    int is_bounded; /* by an allowance, negative where there is none, or by a least propensity */
    double allowance, min_propensity;
} Exploration;

/* Who could serve an event, and who of them may. */
typedef struct {
    Py_ssize_t n, n_eligible;
    uint8_t eligible[MAX_CANDIDATES];
} Field;

static void be_certain(const Field *field, Py_ssize_t index, double *shares) {
    for (Py_ssize_t i = 0; i < field->n; i++) shares[i] = i == index ? 1.0 : 0.0;
}

static void floor_shares(const Field *field, double epsilon, double *shares) {
    const double kept = 1.0 - epsilon, least = epsilon / (double)field->n_eligible;
    for (Py_ssize_t i = 0; i < field->n; i++) shares[i] = kept * shares[i] + (field->eligible[i] ? least : 0.0);
}

static Py_ssize_t find_best(const Field *field, const double *values) {
    Py_ssize_t best = -1;
    for (Py_ssize_t i = 0; i < field->n; i++)
        if (field->eligible[i] && (best < 0 || values[i] > values[best])) best = i;
    return best;
}

/* The sum as numpy adds it. */
static double sum_pairwise(const double *values, Py_ssize_t n) {
    double sums[8], total;
    Py_ssize_t i = 8;
    if (n < 8) {
        total = 0.0;
        for (i = 0; i < n; i++) total += values[i];
        return total;
    }
    memcpy(sums, values, sizeof sums);
    for (; i < n - n % 8; i++) sums[i % 8] += values[i];
    total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < n; i++) total += values[i];
    return total;
}

/* What SquareCB gives all but the best, which takes the rest. */
static void spread_squarecb(const Field *field, const double *values, Py_ssize_t best, const Exploration *how, double *shares) {
    for (Py_ssize_t i = 0; i < field->n; i++)
        shares[i] = field->eligible[i]
                        ? 1.0 / ((double)field->n_eligible + how->gamma * ((values[best] - values[i]) / how->value_range))
                        : 0.0;
    shares[best] = 0.0;
}

/* The sum as numpy's reduceat adds it: the first, and the sum of the others. */
static double sum_after_first(const double *values, Py_ssize_t n) {
    if (n < 2) return n == 1 ? values[0] : 0.0;
    return values[0] + sum_pairwise(values + 1, n - 1);
}

/* What of exploring (float64[k], of the eligible alone) costs at most the allowance against the greedy choice: models/policy.py's
   afford_log. The configuration has no least propensity that so many cannot have. */
static void afford(const double *values, const double *greedy, Py_ssize_t k, const Exploration *how, double *exploring) {
    double gaps[MAX_CANDIDATES], losses[MAX_CANDIDATES], w = 1.0;
    const double least = how->min_propensity, room = 1.0 - (double)k * least, left = room > 0.0 ? room : 0.0;
    if (how->allowance >= 0.0) {
        for (Py_ssize_t i = 0; i < k; i++) gaps[i] = greedy[i] * values[i];
        const double worth = sum_after_first(gaps, k);
        for (Py_ssize_t i = 0; i < k; i++) gaps[i] = worth - values[i];
        for (Py_ssize_t i = 0; i < k; i++) losses[i] = exploring[i] * gaps[i];
        const double remains = how->allowance - least * sum_after_first(gaps, k), loss = left * sum_after_first(losses, k);
        if (!(remains >= 0.0)) { /* the least propensity alone costs more */
            memcpy(exploring, greedy, (size_t)k * sizeof(double));
            return;
        }
        if (loss > remains) w = remains / loss;
    }
    for (Py_ssize_t i = 0; i < k; i++) exploring[i] = left * ((1.0 - w) * greedy[i] + w * exploring[i]) + least;
}

/* The same of k that are all eligible, in place of their greedy shares, as a log is explored: what SquareCB leaves goes as those say. */
static void explore_eligible(const Field *field, const double *values, const Exploration *how, int is_priced, double *shares) {
    double greedy[MAX_CANDIDATES];
    const Py_ssize_t best = find_best(field, values), k = field->n;
    if (how->kind == CERTAIN || how->allowance == 0.0) return;
    memcpy(greedy, shares, (size_t)k * sizeof(double));
    if (how->kind == SQUARECB) {
        spread_squarecb(field, values, best, how, shares);
        if (is_priced) {
            shares[best] = 1.0 / (double)k;
            const double rest = 1.0 - sum_after_first(shares, k), left = rest > 0.0 ? rest : 0.0;
            for (Py_ssize_t i = 0; i < k; i++) shares[i] = shares[i] + left * greedy[i];
        } else {
            shares[best] = 1.0 - sum_after_first(shares, k);
        }
    }
    floor_shares(field, how->epsilon, shares);
    if (how->is_bounded) afford(values, greedy, k, how, shares);
}

/* The same of the eligible among all; `priced` are the greedy shares where there are prices, else NULL. */
static void explore_within(const Field *field, const double *values, const Exploration *how, const double *priced, double *shares) {
    double kept[MAX_CANDIDATES], spread[MAX_CANDIDATES];
    Field eligible = {.n = 0, .n_eligible = field->n_eligible};
    for (Py_ssize_t i = 0; i < field->n; i++) {
        if (!field->eligible[i]) continue;
        if (priced) spread[eligible.n] = priced[i];
        kept[eligible.n++] = values[i];
    }
    memset(eligible.eligible, 1, (size_t)eligible.n);
    if (!priced) be_certain(&eligible, find_best(&eligible, kept), spread);
    explore_eligible(&eligible, kept, how, priced != NULL, spread);
    for (Py_ssize_t i = 0, place = 0; i < field->n; i++) shares[i] = field->eligible[i] ? spread[place++] : 0.0;
}

/* What a model of these values, which are finite, would do; `priced` as in explore_within. */
static void explore(const Field *field, const double *values, const Exploration *how, const double *priced, double *shares) {
    if (priced || how->is_bounded) {
        explore_within(field, values, how, priced, shares);
        return;
    }
    const Py_ssize_t best = find_best(field, values);
    if (how->kind == SQUARECB) {
        spread_squarecb(field, values, best, how, shares);
        shares[best] = 1.0 - sum_pairwise(shares, field->n);
    } else {
        be_certain(field, best, shares);
    }
    if (how->kind != CERTAIN) floor_shares(field, how->epsilon, shares);
}

/* Whether a distribution is sure of one. */
static int is_sure(const double *shares, Py_ssize_t n) {
    Py_ssize_t n_likely = 0;
    for (Py_ssize_t i = 0; i < n; i++) n_likely += shares[i] != 0.0;
    return n_likely == 1;
}

/* The index that a draw in [0, 1) selects; -1 where these shares are no distribution. */
static Py_ssize_t choose(const double *shares, Py_ssize_t n, double draw) {
    double sum = 0.0;
    Py_ssize_t chosen = -1, last = -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!(shares[i] >= 0.0)) return -1;
        sum += shares[i];
        if (chosen < 0 && sum > draw) chosen = i;
        if (shares[i] > 0.0) last = i;
    }
    if (!(fabs(sum - 1.0) <= 1e-9)) return -1;
    return chosen < 0 ? last : chosen;
}

static Py_ssize_t find_likeliest(const double *shares, Py_ssize_t n) {
    Py_ssize_t likeliest = 0;
    for (Py_ssize_t i = 1; i < n; i++)
        if (shares[i] > shares[likeliest]) likeliest = i;
    return likeliest;
}

#endif
