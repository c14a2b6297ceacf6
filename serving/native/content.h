/* What an event says: the course's classifier, which is Python's to ask, is asked once for all candidates. */

#ifndef TURNOUT_CONTENT_H
#define TURNOUT_CONTENT_H

#include "features.h"

/* A value as it stands in the request; null for one that is no scalar. */
static void put_value(Output *out, const Json *json, int32_t token) {
    if (!is_scalar(json, token)) {
        PUT(out, "null");
        return;
    }
    const Token *found = &json->tokens[token];
    const int is_text = found->kind == STRING || found->kind == ESCAPED;
    if (is_text) PUT(out, "\"");
    put_text(out, found->text);
    if (is_text) PUT(out, "\"");
}

/* Note what was said: (float64s, the label, the label in JSON), or None where nothing is known. It is kept until the next event. */
static int note_content(Desk *desk, PyObject *told) {
    Text numbers;
    if (PyList_SetItem(desk->asked.course->kept, CONTENT, told) < 0) return -1;
    if (told == Py_None) return 1;
    if (!PyTuple_Check(told) || PyTuple_Size(told) != 3 || as_text(PyTuple_GetItem(told, 0), &numbers) < 0
        || as_text(PyTuple_GetItem(told, 1), &desk->label) < 0 || as_text(PyTuple_GetItem(told, 2), &desk->label_text) < 0)
        return -1;
    if ((uintptr_t)numbers.at % sizeof(double)) return 0;
    desk->content = (const double *)numbers.at;
    desk->n_content = (Py_ssize_t)(numbers.size / sizeof(double));
    return 1;
}

/* Classify the event by its text and what else is read of it, as one array of JSON; 1 if that is done or not asked for. */
static int read_content(Desk *desk) {
    const Course *course = desk->asked.course;
    const int32_t *tokens = desk->asked.event_tokens;
    const int32_t text = course->text_slot < 0 ? ABSENT : tokens[course->text_slot];
    const Kind kind = text == ABSENT ? NIL : desk->json.tokens[text].kind;
    desk->content = NULL;
    desk->label = MISSING;
    desk->label_text = (Text){"null", 4};
    if (kind != STRING && kind != ESCAPED && kind != NIL) return 0; /* the whole path says what is wrong with it */
    if (course->classify == Py_None || kind == NIL) return 1;
    Output *asked = &desk->rows; /* not written yet */
    asked->size = 0;
    PUT(asked, "[");
    put_value(asked, &desk->json, text);
    for (Py_ssize_t i = 0; i < course->n_read; i++) {
        PUT(asked, ",");
        put_value(asked, &desk->json, tokens[course->read_slots[i]]);
    }
    PUT(asked, "]");
    PyObject *told = asked->failed ? NULL : PyObject_CallFunction(course->classify, "y#", asked->bytes, (Py_ssize_t)asked->size);
    return told ? note_content(desk, told) : -1;
}

#endif
