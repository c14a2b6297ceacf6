/* The feature vectors of a question's candidates, as features/vector.py makes them: for the models a matrix, for the log
   text. A number of the request is logged in the request's own digits, which read back as the same double. */

#ifndef TURNOUT_FEATURES_H
#define TURNOUT_FEATURES_H

#include "question.h"

#define IDENTITY_TEXT 38 /* a UUID in quotes */
#define N_ROOMS 8

typedef struct {
    double value;
    Text text; /* in JSON; none where it is missing or still to be written */
} Cell;

/* What is shared by all questions of one thread; grown to the largest course. */
typedef struct {
    Json json;
    Question asked;
    Output rows, categories, hashed; /* of one event */
    Output records, answers;         /* of all events of a request */
    Cell *event_cells;     /* [n_event] */
    size_t *marks;         /* [n_numbers + 1], where the columns of the first row begin */
    double *operands;      /* [MAX_CANDIDATES, n_operands] */
    Text *category_values; /* [MAX_CANDIDATES, n_categories], without text where missing */
    double *matrix;        /* [MAX_CANDIDATES, n_numbers + n_categories] */
    const double *times;   /* what of the instant is read */
    Py_ssize_t n_times;
    const double *content; /* what is read of what the event says, NULL where nothing is known */
    Py_ssize_t n_content;
    Text label, label_text; /* its class, and that in JSON */
    Text identity;          /* the decision's, in JSON */
    char identity_text[IDENTITY_TEXT];
    uint64_t n_requests;    /* so far, this one included */
    size_t sizes[N_ROOMS]; /* bytes of what is grown */
} Desk;

static const Text MISSING = {NULL, 0};

static int read_cell(const Json *json, int32_t token, Cell *cell) {
    if (!is_scalar(json, token)) {
        *cell = (Cell){NAN, {"null", 4}};
        return 1;
    }
    const Token *found = &json->tokens[token];
    if (found->kind == NUMBER) {
        *cell = (Cell){found->value, found->text};
        return 1;
    }
    *cell = found->kind == TRUE ? (Cell){1.0, {"1.0", 3}} : (Cell){0.0, {"0.0", 3}};
    return found->kind == TRUE || found->kind == FALSE; /* text is no number */
}

/* The text of a value as a category: that of Python's str. */
static int read_category(const Json *json, int32_t token, Text *text) {
    *text = MISSING;
    if (!is_scalar(json, token)) return 1;
    const Token *found = &json->tokens[token];
    *text = found->text;
    if (found->kind == TRUE) *text = (Text){"True", 4};
    if (found->kind == FALSE) *text = (Text){"False", 5};
    if (found->kind == ESCAPED) return 0;
    return found->kind != NUMBER
           || (!memchr(text->at, '.', text->size) && !memchr(text->at, 'e', text->size) && !memchr(text->at, 'E', text->size)
               && !(text->size == 2 && !memcmp(text->at, "-0", 2)));
}

static int find_cell(const Desk *desk, const Column *column, Py_ssize_t place, Py_ssize_t constant, Cell *cell) {
    const Question *asked = &desk->asked;
    const Course *course = asked->course;
    const Candidate *candidate = &asked->candidates[place];
    switch (column->space) {
    case OF_EVENT: *cell = desk->event_cells[column->slot]; return 1;
    case OF_CANDIDATE:
        return read_cell(&desk->json, asked->candidate_tokens[place * course->n_candidate + column->slot], cell);
    case OF_STATE:
        if (column->slot == HEALTH) {
            const int is_known = candidate->is_told || candidate->live;
            *cell = !is_known ? (Cell){NAN, {"null", 4}} : candidate->is_healthy ? (Cell){1.0, {"1.0", 3}} : (Cell){0.0, {"0.0", 3}};
            return 1;
        }
        if (!candidate->live) return read_cell(&desk->json, candidate->state[column->slot], cell);
        *cell = (Cell){candidate->live[N_LIVE - N_STATE + column->slot], MISSING};
        return 1;
    case OF_MEASURE:
        if (candidate->live) {
            *cell = (Cell){candidate->live[N_LIVE + column->slot], MISSING};
            return 1;
        }
        return read_cell(&desk->json, asked->measure_tokens[place * course->n_measures + column->slot], cell);
    case OF_TIME:
        if (column->slot >= desk->n_times) return 0;
        *cell = (Cell){desk->times[column->slot], MISSING};
        return 1;
    case OF_CONTENT:
        *cell = (Cell){NAN, MISSING};
        if (desk->content && column->slot < desk->n_content) cell->value = desk->content[column->slot];
        return 1;
    case OF_DESTINATION:
        cell->value = course->constants[candidate->destination * (course->n_numbers + course->n_operands) + constant];
        cell->text = constant < course->n_numbers
                         ? course->constant_texts[candidate->destination * course->n_numbers + constant]
                         : MISSING;
        return 1;
    default: *cell = (Cell){NAN, MISSING}; return 1;
    }
}

/* The event's cells; those that are read as numbers must be numbers. */
static int read_event_cells(Desk *desk) {
    const Course *course = desk->asked.course;
    const Column *columns[] = {course->numbers, course->operands};
    const Py_ssize_t counts[] = {course->n_numbers, course->n_operands};
    for (int i = 0; i < 2; i++)
        for (Py_ssize_t c = 0; c < counts[i]; c++) {
            const int32_t slot = columns[i][c].slot;
            if (columns[i][c].space == OF_EVENT
                && !read_cell(&desk->json, desk->asked.event_tokens[slot], &desk->event_cells[slot]))
                return 0;
        }
    return 1;
}

/* Let the course compute what is computed: float64[n_computed, n] of its operands, float64[n, n_operands]. */
static int compute_columns(Desk *desk) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = desk->asked.field.n, width = course->n_numbers + course->n_categories;
    if (course->compute == Py_None) return 1;
    for (Py_ssize_t i = 0; i < n; i++)
        for (Py_ssize_t c = 0; c < course->n_operands; c++) {
            Cell cell;
            if (!find_cell(desk, &course->operands[c], i, course->n_numbers + c, &cell)) return 0;
            desk->operands[i * course->n_operands + c] = cell.value;
        }
    PyObject *operands = PyMemoryView_FromMemory((char *)desk->operands,
                                                 n * course->n_operands * (Py_ssize_t)sizeof(double), PyBUF_READ);
    PyObject *computed = operands ? PyObject_CallFunction(course->compute, "On", operands, n) : NULL;
    Py_XDECREF(operands);
    Py_buffer view;
    if (!computed || PyObject_GetBuffer(computed, &view, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(computed);
        return -1;
    }
    const double *value = view.buf;
    const Py_ssize_t n_values = view.len / (Py_ssize_t)sizeof(double);
    Py_ssize_t n_read = 0;
    for (Py_ssize_t c = 0; c < course->n_numbers; c++)
        for (Py_ssize_t i = 0; course->numbers[c].space == OF_COMPUTED && i < n; i++, n_read++)
            if (n_read < n_values) desk->matrix[i * width + c] = value[n_read];
    PyBuffer_Release(&view);
    Py_DECREF(computed);
    return n_read == n_values;
}

static void put_cell(Output *out, double value, Text text) {
    if (text.at) put_text(out, text);
    else if (isfinite(value)) put_double(out, value);
    else PUT(out, "null");
}

/* Fill the matrix with a run of columns that stand together, and write them; return how many, 0 to fill the next one alone. */
static Py_ssize_t write_run(Desk *desk, Py_ssize_t place, Py_ssize_t c, double *row) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n = course->runs[c], destination = desk->asked.candidates[place].destination;
    if (course->numbers[c].space == OF_DESTINATION) {
        const double *constants = course->constants + destination * (course->n_numbers + course->n_operands);
        memcpy(row + c, constants + c, (size_t)n * sizeof(double));
        put_text(&desk->rows, course->run_texts[destination * course->n_numbers + c]);
        return n;
    }
    if (course->numbers[c].space != OF_EVENT || !place) return 0;
    const size_t begin = desk->marks[c], size = desk->marks[c + n] - 1 - begin; /* as in the first row */
    if (!reserve(&desk->rows, size)) return 0;
    put(&desk->rows, desk->rows.bytes + begin, size);
    memcpy(row + c, desk->matrix + c, (size_t)n * sizeof(double));
    return n;
}

/* Fill a row of the matrix and write it for the log, where a row after the first leaves out what it shares with it. */
static int write_row(Desk *desk, Py_ssize_t place) {
    const Course *course = desk->asked.course;
    const Py_ssize_t n_shared = place ? course->n_shared : 0;
    double *row = desk->matrix + place * (course->n_numbers + course->n_categories);
    if (n_shared) memcpy(row, desk->matrix, (size_t)n_shared * sizeof(double));
    for (Py_ssize_t c = n_shared, n_run; c < course->n_numbers; c += n_run) {
        if (c > n_shared) PUT(&desk->rows, ",");
        if (!place) desk->marks[c] = desk->rows.size;
        n_run = write_run(desk, place, c, row);
        if (n_run) continue;
        Cell cell = {row[c], MISSING};
        if (course->numbers[c].space != OF_COMPUTED && !find_cell(desk, &course->numbers[c], place, c, &cell)) return 0;
        row[c] = isfinite(cell.value) ? cell.value : NAN;
        put_cell(&desk->rows, row[c], cell.text);
        n_run = 1;
    }
    if (!place) desk->marks[course->n_numbers] = desk->rows.size + 1; /* as if a comma followed */
    return 1;
}

/* Fill the matrix' numbers and their rows for the log. */
static int write_numbers(Desk *desk) {
    const int computed = compute_columns(desk);
    desk->rows.size = 0;
    for (Py_ssize_t i = 0; computed == 1 && i < desk->asked.field.n; i++) {
        put(&desk->rows, i ? ",[" : "[", i ? 2 : 1);
        if (!write_row(desk, i)) return 0;
        PUT(&desk->rows, "]");
    }
    return computed;
}

/* Find the categories and write their rows for the log. */
static int write_categories(Desk *desk) {
    const Question *asked = &desk->asked;
    const Course *course = asked->course;
    desk->categories.size = 0;
    for (Py_ssize_t i = 0; i < asked->field.n; i++) {
        put(&desk->categories, i ? ",[" : "[", i ? 2 : 1);
        for (Py_ssize_t c = 0; c < course->n_categories; c++) {
            const Column *column = &course->categories[c];
            Text *value = &desk->category_values[i * course->n_categories + c];
            if (c) PUT(&desk->categories, ",");
            if (column->space == OF_DESTINATION) {
                put_text(&desk->categories,
                         course->category_texts[asked->candidates[i].destination * course->n_categories + c]);
                continue;
            }
            if (column->space == OF_CONTENT) {
                *value = desk->label;
                put_text(&desk->categories, desk->label_text);
                continue;
            }
            const int32_t token = column->space == OF_EVENT
                                      ? asked->event_tokens[column->slot]
                                      : asked->candidate_tokens[i * course->n_candidate + column->slot];
            if (!read_category(&desk->json, token, value)) return 0;
            if (!value->at) {
                PUT(&desk->categories, "null");
                continue;
            }
            PUT(&desk->categories, "\"");
            put_text(&desk->categories, *value);
            PUT(&desk->categories, "\"");
        }
        PUT(&desk->categories, "]");
    }
    return 1;
}

/* Fill the matrix' categories with the codes of one model. */
static void encode_categories(Desk *desk, const Role *role) {
    const Course *course = desk->asked.course;
    const Py_ssize_t width = course->n_numbers + course->n_categories;
    for (Py_ssize_t c = 0; c < course->n_categories; c++)
        for (Py_ssize_t i = 0; i < desk->asked.field.n; i++) {
            double *cell = desk->matrix + i * width + course->n_numbers + c;
            const Text value = desk->category_values[i * course->n_categories + c];
            if (course->categories[c].space == OF_DESTINATION) {
                *cell = role->destination_codes[desk->asked.candidates[i].destination * course->n_categories + c];
            } else if (course->categories[c].space == OF_EVENT && i) {
                *cell = cell[-width];
            } else {
                const int32_t code = value.at ? find_name(&role->codes[c], value) : -1;
                *cell = code < 0 ? NAN : (double)code;
            }
        }
}

#endif
