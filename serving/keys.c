/* Tells in one pass over valid JSON whether one of its objects may say one thing twice.

   Keys are compared by a hash, within the object they stand in. What is not worth being exact about (an escape, two keys of
   one hash, very many keys, very deep nesting) counts as a repetition: the caller then looks closely. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define MAX_KEYS 256 /* of an object and all it stands in */
#define MAX_DEPTH 64

/* The hashes of the keys seen so far in the open objects, the innermost last; `first` says where each one's begin. */
typedef struct {
    uint64_t hashes[MAX_KEYS];
    int first[MAX_DEPTH];
    int n_keys, depth;
} Open;

static int is_new(Open *open, const char *key, const char *end) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (; key < end; key++) hash = (hash ^ (unsigned char)*key) * 1099511628211u;
    if (!open->depth || open->n_keys == MAX_KEYS) return 0;
    for (int i = open->first[open->depth - 1]; i < open->n_keys; i++)
        if (open->hashes[i] == hash) return 0;
    open->hashes[open->n_keys++] = hash;
    return 1;
}

static int may_repeat(const char *at, const char *end) {
    Open open = {.n_keys = 0, .depth = 0};
    while (at < end) {
        const char sign = *at++;
        if (sign == '{') {
            if (open.depth == MAX_DEPTH) return 1;
            open.first[open.depth++] = open.n_keys;
        } else if (sign == '}') {
            if (!open.depth) return 1;
            open.n_keys = open.first[--open.depth];
        } else if (sign == '"') {
            const char *text = at;
            if (!(at = memchr(text, '"', (size_t)(end - text))) || memchr(text, '\\', (size_t)(at - text))) return 1;
            const char *text_end = at++;
            while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
            if (at < end && *at == ':' && !is_new(&open, text, text_end)) return 1;
        }
    }
    return 0;
}

static PyObject *keys_may_repeat(PyObject *module, PyObject *body) {
    (void)module;
    Py_buffer json;
    if (PyObject_GetBuffer(body, &json, PyBUF_SIMPLE) < 0) return NULL;
    const int found = may_repeat(json.buf, (const char *)json.buf + json.len);
    PyBuffer_Release(&json);
    return PyBool_FromLong(found);
}

static PyMethodDef methods[] = {
    {"may_repeat", keys_may_repeat, METH_O,
     "may_repeat(body, /)\n--\n\nTell whether an object in valid JSON may say one thing twice; False is certain."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_keys", "Keys in JSON.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__keys(void) { return PyModuleDef_Init(&module); }
