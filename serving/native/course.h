/* One stream as it is decided now: its features, its policy and its models, read once from serving/course.py's Course. */

#ifndef TURNOUT_COURSE_H
#define TURNOUT_COURSE_H

#include "roles.h"

/* Places of what is kept: what changes has one of its own. */
enum { RULES, LIVE, CONTENT, N_CHANGING };

#define MAX_ROLES 3 /* champion, challenger, shadow */

/* Where a column is read: a cell's slot among those of its space. The order is that of course.SPACES. */
typedef enum { OF_EVENT, OF_CANDIDATE, OF_DESTINATION, OF_STATE, OF_MEASURE, OF_TIME, OF_CONTENT, OF_COMPUTED } Space;

#define N_STATE 5 /* numbers of a destination's state, as live.STATE orders them */
#define HEALTH N_STATE /* read as a number, it has the slot after them */
#define N_LIVE (3 + N_STATE) /* of a live state: whether there is one, when it was observed, health, and the numbers */

typedef struct {
    Space space;
    int32_t slot;
} Column;

typedef struct {
    int32_t *places; /* destinations, the most wanted first */
    Py_ssize_t n;
} Order;

typedef struct {
    PyObject *kept; /* a list of all that the pointers here lead to; its first places are the last event's rules, the live states, and what
                       was said of the last event's content */
    PyObject *mask, *compute, *classify, *keys;
    Text name, name_text, mode, static_reason, tail, feature_set, generation, text_field, by, champion_digest, challenger_digest;
    Names destinations, event, candidate, measures, routes;
    Text *destination_names, *destination_texts;
    Py_ssize_t n_destinations, n_numbers, n_categories, n_operands;
    int32_t n_event, n_candidate, n_measures;
    int32_t text_slot, by_slot;
    int32_t *read_slots; /* [n_read], of what is read of the event beside its text to classify it */
    Py_ssize_t n_read;
    Column *numbers, *categories, *operands;
    const double *constants; /* [n_destinations, n_numbers + n_operands] */
    Text *constant_texts, *category_texts; /* [n_destinations, n_numbers], [n_destinations, n_categories] */
    int32_t *runs;   /* by number: how many columns from it on are the event's, or the destination's, 1 where it is neither */
    Py_ssize_t n_shared; /* how many of the first numbers are the event's: they are logged once */
    char shared_text[32]; /* that, as a field of the record; empty where there are none */
    Text *run_texts; /* [n_destinations, n_numbers]: the destination's texts of that run */
    Order *orders; /* the default, that of an absent value, then those of the routes */
    Exploration exploration;
    Role roles[MAX_ROLES];
    int n_roles, champion, challenger; /* roles by their index, -1 where there is none that decides */
    const double *live; /* [n_destinations, N_LIVE + n_measures], NULL while nothing is known */
    double max_age_seconds;            /* of a state */
    double share;                      /* of the challenger */
    uint64_t n_opened;                 /* the request whose decisions are being charged, by its number */
    int is_sticky;
} Course;

/* The columns of a tuple of (space, name); names of a space that the request fills get a slot there. */
static Column *read_columns(Course *course, PyObject *spec, const char *name, Py_ssize_t *n) {
    PyObject *values = part(course->kept, spec, name);
    *n = values ? PyTuple_Size(values) : -1;
    Column *columns = *n < 0 ? NULL : allot(course->kept, *n, sizeof(Column));
    for (Py_ssize_t i = 0; columns && i < *n; i++) {
        int space;
        Text text;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GetItem(values, i), "iy#", &space, &text.at, &size)) return NULL;
        text.size = (size_t)size;
        columns[i] = (Column){(Space)space, (int32_t)i};
        if (space == OF_EVENT) columns[i].slot = add_name(&course->event, text, course->n_event);
        if (space == OF_CANDIDATE) columns[i].slot = add_name(&course->candidate, text, course->n_candidate);
        if (space == OF_MEASURE) columns[i].slot = add_name(&course->measures, text, course->n_measures);
        if (space == OF_STATE || space == OF_TIME || space == OF_CONTENT) columns[i].slot = atoi(text.at); /* bytes end in a zero */
        if (space < OF_EVENT || space > OF_COMPUTED || columns[i].slot < 0 || (space == OF_STATE && columns[i].slot > HEALTH)) {
            PyErr_Format(PyExc_ValueError, "%s: column %zd is of no space", name, i);
            return NULL;
        }
        course->n_event += space == OF_EVENT && columns[i].slot == course->n_event;
        course->n_candidate += space == OF_CANDIDATE && columns[i].slot == course->n_candidate;
        course->n_measures += space == OF_MEASURE && columns[i].slot == course->n_measures;
    }
    return columns;
}

static int read_order(Course *course, Order *order, Text places) {
    order->n = (Py_ssize_t)(places.size / sizeof(int32_t));
    if (!(order->places = allot(course->kept, order->n, sizeof(int32_t)))) return -1;
    memcpy(order->places, places.at, (size_t)order->n * sizeof(int32_t));
    for (Py_ssize_t i = 0; i < order->n; i++)
        if (order->places[i] < 0 || order->places[i] >= course->n_destinations) {
            PyErr_SetString(PyExc_ValueError, "orders must name destinations by their place");
            return -1;
        }
    return 0;
}

static int read_orders(Course *course, PyObject *spec) {
    Py_ssize_t n_routes = -1, n_orders;
    const Text *routes = read_texts(course->kept, spec, "routes", &n_routes);
    if (!routes || name_texts(course->kept, &course->routes, routes, n_routes) < 0) return -1;
    n_orders = n_routes + 2;
    const Text *orders = read_texts(course->kept, spec, "orders", &n_orders);
    if (!orders || !(course->orders = allot(course->kept, n_orders, sizeof(Order)))) return -1;
    for (Py_ssize_t i = 0; i < n_orders; i++)
        if (read_order(course, &course->orders[i], orders[i]) < 0) return -1;
    return 0;
}

/* Have a role owe together with an earlier one of the same model. */
static void join_debts(Course *course, Tariff *tariff) {
    for (int r = 0; tariff->n && &course->roles[r].tariff != tariff; r++)
        if (course->roles[r].tariff.debt == tariff->debt) {
            tariff->owed = course->roles[r].tariff.owed;
            tariff->opened = course->roles[r].tariff.opened;
        }
}

static int read_roles(Course *course, PyObject *spec) {
    PyObject *roles = part(course->kept, spec, "roles");
    const Py_ssize_t n = roles ? PyTuple_Size(roles) : -1;
    if (n < 0) return -1;
    if (n > MAX_ROLES || course->champion < -1 || course->champion >= n || course->challenger < -1
        || course->challenger >= n) {
        PyErr_Format(PyExc_ValueError, "at most %d roles, the champion and the challenger among them", MAX_ROLES);
        return -1;
    }
    const Extent of = {course->n_destinations, course->n_numbers, course->n_categories};
    for (course->n_roles = 0; course->n_roles < (int)n; course->n_roles++) {
        Role *role = &course->roles[course->n_roles];
        if (read_role(course->kept, &of, role, PyTuple_GetItem(roles, course->n_roles)) < 0) return -1;
        join_debts(course, &role->tariff);
    }
    return 0;
}

/* Begin to charge the decisions of a request, by its number, if that is not begun yet. */
static void open_debts(Course *course, uint64_t number) {
    if (course->n_opened == number) return;
    course->n_opened = number;
    for (int r = 0; r < course->n_roles; r++) open_debt(&course->roles[r].tariff);
}

static void close_debts(Course *course) {
    for (int r = 0; r < course->n_roles; r++) close_debt(&course->roles[r].tariff);
}

static int read_exploration(Course *course, PyObject *spec) {
    Exploration *how = &course->exploration;
    int kind;
    if (read_integer(course->kept, spec, "exploring", &kind) < 0 || read_float(course->kept, spec, "epsilon", &how->epsilon) < 0
        || read_float(course->kept, spec, "gamma", &how->gamma) < 0
        || read_float(course->kept, spec, "value_range", &how->value_range) < 0
        || read_float(course->kept, spec, "static_epsilon", &how->static_epsilon) < 0
        || read_integer(course->kept, spec, "is_bounded", &how->is_bounded) < 0
        || read_float(course->kept, spec, "allowance", &how->allowance) < 0
        || read_float(course->kept, spec, "min_propensity", &how->min_propensity) < 0)
        return -1;
    how->kind = (Exploring)kind;
    return 0;
}

/* The slot of an attribute of the event that is read for something else than a feature; -1 where there is none. */
static int32_t add_slot(Course *course, Text name) {
    if (!name.size) return -1;
    const int32_t slot = add_name(&course->event, name, course->n_event);
    course->n_event += slot == course->n_event;
    return slot;
}

/* The slots of what is read of the event beside its text. */
static int read_read(Course *course, PyObject *spec) {
    course->n_read = -1;
    const Text *names = read_texts(course->kept, spec, "read", &course->n_read);
    if (!names || !(course->read_slots = allot(course->kept, course->n_read, sizeof(int32_t)))) return -1;
    for (Py_ssize_t i = 0; i < course->n_read; i++)
        if ((course->read_slots[i] = add_slot(course, names[i])) < 0) {
            PyErr_SetString(PyExc_ValueError, "read: an attribute has no name");
            return -1;
        }
    return 0;
}

/* Count the first numbers that are the same for all candidates. */
static void count_shared(Course *course) {
    Py_ssize_t n = 0;
    for (; n < course->n_numbers; n++) {
        const Space space = course->numbers[n].space;
        if (space != OF_EVENT && space != OF_TIME && space != OF_CONTENT) break;
    }
    course->n_shared = n;
    if (n) PyOS_snprintf(course->shared_text, sizeof course->shared_text, ",\"n_shared\":%zd", n);
}

/* Find what stands together: the destination's own numbers are written in one piece, the event's copied in one. */
static int join_runs(Course *course) {
    const Py_ssize_t n = course->n_numbers;
    if (!(course->runs = allot(course->kept, n, sizeof(int32_t)))
        || !(course->run_texts = allot(course->kept, course->n_destinations * n, sizeof(Text))))
        return -1;
    for (Py_ssize_t c = n - 1; c >= 0; c--) {
        const Space space = course->numbers[c].space;
        const int is_joined = c + 1 < n && (space == OF_EVENT || space == OF_DESTINATION) && course->numbers[c + 1].space == space;
        course->runs[c] = is_joined ? course->runs[c + 1] + 1 : 1;
        for (Py_ssize_t d = 0; space == OF_DESTINATION && d < course->n_destinations; d++) {
            const Text *one = &course->constant_texts[d * n + c], *rest = &course->run_texts[d * n + c + 1];
            Text *joined = &course->run_texts[d * n + c];
            char *bytes = allot(course->kept, (Py_ssize_t)one->size + (is_joined ? (Py_ssize_t)rest->size + 1 : 0), 1);
            if (!bytes) return -1;
            *joined = (Text){bytes, one->size};
            memcpy(bytes, one->at, one->size);
            if (!is_joined) continue;
            bytes[joined->size] = ',';
            memcpy(bytes + joined->size + 1, rest->at, rest->size);
            joined->size += rest->size + 1;
        }
    }
    return 0;
}

/* How many names columns and what else is read of an event can have at most. */
static Py_ssize_t count_columns(Course *course, PyObject *spec) {
    static const char *const NAMES[] = {"numbers", "categories", "operands", "read"};
    Py_ssize_t n_columns = 2;
    for (int i = 0; i < 4; i++) {
        PyObject *columns = part(course->kept, spec, NAMES[i]);
        const Py_ssize_t n = columns ? PyTuple_Size(columns) : -1;
        if (n < 0) return -1;
        n_columns += n;
    }
    return n_columns;
}

static int read_features(Course *course, PyObject *spec) {
    const Py_ssize_t n_names = count_columns(course, spec);
    if (n_names < 0 || allot_names(course->kept, &course->event, n_names) < 0
        || allot_names(course->kept, &course->candidate, n_names) < 0 || allot_names(course->kept, &course->measures, n_names) < 0
        || !(course->numbers = read_columns(course, spec, "numbers", &course->n_numbers))
        || !(course->categories = read_columns(course, spec, "categories", &course->n_categories))
        || !(course->operands = read_columns(course, spec, "operands", &course->n_operands)))
        return -1;
    course->text_slot = add_slot(course, course->text_field);
    course->by_slot = add_slot(course, course->by);
    if (read_read(course, spec) < 0) return -1;
    count_shared(course);
    Py_ssize_t n_constants = course->n_destinations * (course->n_numbers + course->n_operands);
    Py_ssize_t n_texts = course->n_destinations * course->n_numbers, n_categories = course->n_destinations * course->n_categories;
    return (course->constants = read_doubles(course->kept, spec, "constants", n_constants))
                   && (course->constant_texts = read_texts(course->kept, spec, "constant_texts", &n_texts))
                   && (course->category_texts = read_texts(course->kept, spec, "category_texts", &n_categories))
                   && join_runs(course) == 0
               ? 0
               : -1;
}

/* Read a spec; whether that succeeds or fails, with an error set, `kept` is the caller's to release. */
static int read_course(Course *course, PyObject *spec) {
    if (!(course->kept = PyList_New(0))) return -1;
    for (int place = 0; place < N_CHANGING; place++)
        if (PyList_Append(course->kept, Py_None) < 0) return -1;
    course->n_destinations = -1;
    if (!(course->destination_names = read_texts(course->kept, spec, "destinations", &course->n_destinations))
        || !(course->destination_texts = read_texts(course->kept, spec, "destination_texts", &course->n_destinations))
        || name_texts(course->kept, &course->destinations, course->destination_names, course->n_destinations) < 0
        || !(course->mask = part(course->kept, spec, "mask")) || !(course->compute = part(course->kept, spec, "compute"))
        || !(course->classify = part(course->kept, spec, "classify")) || !(course->keys = part(course->kept, spec, "keys")))
        return -1;
    const struct { const char *name; Text *text; } texts[] = {
        {"name", &course->name}, {"name_text", &course->name_text}, {"mode", &course->mode}, {"static_reason", &course->static_reason},
        {"tail", &course->tail}, {"feature_set", &course->feature_set}, {"generation", &course->generation},
        {"text_field", &course->text_field}, {"by", &course->by}, {"champion_digest", &course->champion_digest},
        {"challenger_digest", &course->challenger_digest}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (read_text(course->kept, spec, texts[i].name, texts[i].text) < 0) return -1;
    if (read_integer(course->kept, spec, "champion", &course->champion) < 0
        || read_integer(course->kept, spec, "challenger", &course->challenger) < 0
        || read_integer(course->kept, spec, "is_sticky", &course->is_sticky) < 0
        || read_float(course->kept, spec, "max_age_seconds", &course->max_age_seconds) < 0
        || read_float(course->kept, spec, "share", &course->share) < 0)
        return -1;
    return read_exploration(course, spec) < 0 || read_features(course, spec) < 0 || read_orders(course, spec) < 0
                   || read_roles(course, spec) < 0
               ? -1
               : 0;
}

#endif
