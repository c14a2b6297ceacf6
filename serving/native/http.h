/* The HTTP around a decision: a request that is known by its head, and the reply. */

#ifndef TURNOUT_HTTP_H
#define TURNOUT_HTTP_H

#include <Python.h>

#include "text.h"

#define MAX_LENGTH_TEXT 24

/* The end of a request's head, NULL where it is not there. */
static const char *find_head_end(Text data) {
    const char *at = data.at, *end = data.at + data.size;
    while ((at = memchr(at, '\r', (size_t)(end - at))) && end - at >= 4) {
        if (!memcmp(at, "\r\n\r\n", 4)) return at + 4;
        at++;
    }
    return NULL;
}

/* Find the body of the request that data begins with, where its head is among `heads` and it is there as a whole: they lead from its bytes to twice the length
   of its body, and one more where that is an event alone. Returns 1 if it is, 0 if not, -1 with an error set. */
static int find_body(Text data, PyObject *heads, Text *body, int *is_bare) {
    const char *end = find_head_end(data);
    PyObject *head = end ? PyBytes_FromStringAndSize(data.at, end - data.at) : NULL;
    PyObject *known = head ? PyDict_GetItemWithError(heads, head) : NULL;
    Py_XDECREF(head);
    if (!known) return PyErr_Occurred() ? -1 : 0;
    const Py_ssize_t told = PyLong_AsSsize_t(known);
    if (told < 0) return PyErr_Occurred() ? -1 : 0;
    *is_bare = (int)(told & 1);
    *body = (Text){end, (size_t)told >> 1};
    return (size_t)(data.at + data.size - end) >= body->size;
}

/* Put a reply: a head that ends where the length of the body stands, and the body. */
static void put_reply(Output *out, Text head, const Output *body) {
    char length[MAX_LENGTH_TEXT];
    put_text(out, head);
    put(out, length, write_integer(body->size, 1, length));
    PUT(out, "\r\n\r\n");
    put(out, body->bytes, body->size);
}

#endif
