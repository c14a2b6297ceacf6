/* Text by reference and text that grows; names found by their text. */

#ifndef TURNOUT_TEXT_H
#define TURNOUT_TEXT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"

typedef struct {
    const char *at;
    size_t size;
} Text;

static int is_equal(Text one, Text other) { return one.size == other.size && !memcmp(one.at, other.at, one.size); }

/* For tables of names that are known beforehand, not against somebody who seeks collisions: eight bytes at a time, after
   Wang Yi, "wyhash", whose multiplications fold the high half of a product into the low one. */
static uint64_t hash_word(uint64_t hash, uint64_t word) {
#ifdef __SIZEOF_INT128__
    const unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0x9e3779b97f4a7c15u;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    const uint64_t mixed = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return mixed ^ mixed >> 32;
#endif
}

/* Fewer than eight bytes as a number: no two of one length are the same. */
static uint64_t read_few(const char *at, size_t n) {
    uint32_t low, high;
    if (n >= sizeof low) {
        memcpy(&low, at, sizeof low);
        memcpy(&high, at + n - sizeof high, sizeof high);
        return (uint64_t)high << 32 | low;
    }
    return n ? (uint64_t)(unsigned char)at[0] << 16 | (uint64_t)(unsigned char)at[n / 2] << 8 | (unsigned char)at[n - 1] : 0;
}

static uint64_t hash_text(Text text) {
    uint64_t hash = 0x2d358dccaa6c78a5u ^ text.size * 0x9e3779b97f4a7c15u, word; /* a size looks like no word */
    const char *at = text.at;
    size_t left = text.size;
    for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = hash_word(hash, word);
    }
    if (text.size >= sizeof word) { /* the last eight, some of them for the second time */
        memcpy(&word, text.at + text.size - sizeof word, sizeof word);
        return hash_word(hash, word);
    }
    return hash_word(hash, read_few(at, left));
}

/* Names and what each stands for; open addressing, at most half full. */
typedef struct {
    Text name;
    uint64_t hash;
    int32_t value;
} Entry;

typedef struct {
    Entry *entries;
    size_t mask;
} Names;

/* How many entries n names take. */
static size_t count_entries(size_t n) {
    size_t size = 4;
    while (size < 2 * n) size *= 2;
    return size;
}

static Entry *find_entry(const Names *names, Text name, uint64_t hash) {
    Entry *entry = &names->entries[hash & names->mask];
    while (entry->name.at && !(entry->hash == hash && is_equal(entry->name, name)))
        entry = entry == &names->entries[names->mask] ? names->entries : entry + 1;
    return entry;
}

/* The value of a name, -1 where there is none. */
static int32_t find_hashed(const Names *names, Text name, uint64_t hash) {
    const Entry *entry = find_entry(names, name, hash);
    return entry->name.at ? entry->value : -1;
}

static int32_t find_name(const Names *names, Text name) { return find_hashed(names, name, hash_text(name)); }

/* Note what a name stands for, unless it does already; return what it then stands for. */
static int32_t add_name(Names *names, Text name, int32_t value) {
    Entry *entry = find_entry(names, name, hash_text(name));
    if (!entry->name.at) *entry = (Entry){name, hash_text(name), value};
    return entry->value;
}

/* Text that grows; where memory fails, `failed` is set and what is written is lost. */
typedef struct {
    char *bytes;
    size_t size, capacity;
    int failed;
} Output;

static char *reserve(Output *out, size_t n) {
    if (out->size + n > out->capacity) {
        const size_t capacity = 2 * (out->size + n);
        char *bytes = realloc(out->bytes, capacity);
        if (!bytes) {
            out->failed = 1;
            return NULL;
        }
        out->bytes = bytes;
        out->capacity = capacity;
    }
    return out->bytes + out->size;
}

#define KEPT_BYTES ((size_t)1 << 21)

/* Give back what unusually much text took. */
static void trim(Output *out) {
    if (out->capacity <= KEPT_BYTES) return;
    free(out->bytes);
    *out = (Output){NULL, 0, 0, 0};
}

static inline void put(Output *out, const char *bytes, size_t n) {
    if (out->size + n > out->capacity && !reserve(out, n)) return;
    memcpy(out->bytes + out->size, bytes, n);
    out->size += n;
}

#define PUT(out, literal) put(out, literal, sizeof(literal) - 1)

static void put_text(Output *out, Text text) { put(out, text.at, text.size); }

#define N_WRITTEN 64 /* doubles whose text is kept: a distribution has few different ones; a power of two */

/* Used and changed while the interpreter's lock is held. */
static struct {
    uint64_t bits;
    size_t size;
    char text[MAX_DOUBLE_TEXT];
} WRITTEN[N_WRITTEN];

static void put_double(Output *out, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const size_t place = (size_t)((bits * 0x9e3779b97f4a7c15u) >> 58);
    if (!WRITTEN[place].size || WRITTEN[place].bits != bits) {
        WRITTEN[place].size = write_double(value, WRITTEN[place].text);
        WRITTEN[place].bits = bits;
    }
    if (!WRITTEN[place].size) out->failed = 1;
    put(out, WRITTEN[place].text, WRITTEN[place].size);
}

static void put_doubles(Output *out, const double *values, Py_ssize_t n) {
    PUT(out, "[");
    for (Py_ssize_t i = 0; i < n; i++) {
        if (i) PUT(out, ",");
        put_double(out, values[i]);
    }
    PUT(out, "]");
}

#endif
