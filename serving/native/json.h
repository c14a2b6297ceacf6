/* JSON as a row of tokens: every value is followed by what it holds, and knows where the next one begins.

   It reads less than all JSON: no backslash in a key, no half of a surrogate pair, no key twice in an object, no deep nesting, no
   number of many digits. Whatever it does not read is not refused, but left to the reader that reads it all and can say what is
   wrong. A string with a backslash is a kind of its own: it is carried as it stands, and means nothing here. */

#ifndef TURNOUT_JSON_H
#define TURNOUT_JSON_H

#include "little.h"
#include "text.h"

#define MAX_JSON_DEPTH 16
#define MAX_OBJECT_KEYS 128
#define MAX_INTEGER_TEXT 18
#define MAX_TOKENS (1 << 18) /* ten megabytes */
#define KEPT_TOKENS (1 << 15)

typedef enum { OBJECT, ARRAY, STRING, ESCAPED, NUMBER, TRUE, FALSE, NIL } Kind;

typedef struct {
    Text text; /* of a string what stands between its quotes */
    union {
        uint64_t hash; /* of a string */
        double value;  /* of a number */
    };
    int32_t next; /* the token after this value */
    Kind kind;
} Token;

typedef struct {
    Token *tokens;
    int32_t n_tokens, capacity;
    const char *at, *end;
    int is_ascii;
} Json;

static Token *add_token(Json *json, Kind kind, const char *text, size_t size) {
    if (json->n_tokens == json->capacity) {
        const int32_t capacity = json->capacity ? 2 * json->capacity : 1024;
        Token *tokens = capacity > MAX_TOKENS ? NULL : realloc(json->tokens, (size_t)capacity * sizeof(Token));
        if (!tokens) return NULL;
        json->tokens = tokens;
        json->capacity = capacity;
    }
    Token *token = &json->tokens[json->n_tokens++];
    *token = (Token){.text = {text, size}, .next = json->n_tokens, .kind = kind};
    return token;
}

static void skip_space(Json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\t' || *json->at == '\r'))
        json->at++;
}

static int take(Json *json, char sign) {
    skip_space(json);
    if (json->at == json->end || *json->at != sign) return 0;
    json->at++;
    return 1;
}

/* What a byte is to a string: the table makes one step of each. */
enum { PLAIN, BEYOND_ASCII, QUOTE, BACKSLASH, FOREIGN };
static uint8_t SIGNS[256];

static void make_sign_table(void) {
    for (int sign = 0; sign < 256; sign++) SIGNS[sign] = sign < 0x20 ? FOREIGN : sign < 0x80 ? PLAIN : BEYOND_ASCII;
    SIGNS['"'] = QUOTE;
    SIGNS['\\'] = BACKSLASH;
}

/* What follows the escape whose backslash stands at `at`; NULL where it is none, or one half of a surrogate pair. */
static const char *skip_escape(const char *at, const char *end) {
    if (end - at < 2) return NULL;
    if (at[1] != 'u') return at[1] && strchr("\"\\/bfnrt", at[1]) ? at + 2 : NULL;
    if (end - at < 6) return NULL;
    for (int digit = 2; digit < 6; digit++)
        if (!at[digit] || !strchr("0123456789abcdefABCDEF", at[digit])) return NULL;
    return (at[2] == 'd' || at[2] == 'D') && at[3] > '7' ? NULL : at + 6;
}

#define EACH(byte) (0x0101010101010101u * (byte))

/* Of eight bytes, the first the lowest, a bit in the first that is not PLAIN, and perhaps in some behind it. After Alan Mycroft's test for a zero
   byte, 1987: a subtraction borrows where a byte is smaller, and from bytes behind it alone. */
static uint64_t find_odd(uint64_t word) {
    const uint64_t quotes = word ^ EACH('"'), slashes = word ^ EACH('\\');
    return ((quotes - EACH(1)) | (slashes - EACH(1)) | (word - EACH(0x20))) & EACH(0x80); /* beyond ASCII one of the first two is */
}

/* Pass what is PLAIN, as far as eight bytes can be looked at together. */
static const char *skip_plain(const char *at, const char *end) {
    for (; end - at >= 8; at += 8) {
        const uint64_t odd = find_odd(read_little(at));
        if (!odd) continue;
#if defined(__GNUC__)
        at += __builtin_ctzll(odd) / 8;
#endif
        break;
    }
    return at;
}

/* Read the string whose first quote has been read; its hash comes with it. */
static int read_string(Json *json, int may_escape) {
    const char *start = json->at, *at = skip_plain(start, json->end);
    Kind kind = STRING;
    uint8_t sign = FOREIGN;
    while (at < json->end && (sign = SIGNS[(unsigned char)*at]) != QUOTE) {
        if (sign == BEYOND_ASCII) json->is_ascii = 0;
        if (sign < QUOTE) {
            at++;
            continue;
        }
        if (sign != BACKSLASH || !may_escape || !(at = skip_escape(at, json->end))) return 0;
        kind = ESCAPED;
    }
    Token *token = at == json->end ? NULL : add_token(json, kind, start, (size_t)(at - start));
    if (!token) return 0;
    token->hash = hash_text(token->text);
    json->at = at + 1;
    return 1;
}

static int read_word(Json *json, Kind kind, const char *word, size_t size) {
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, word, size)) return 0;
    json->at += size;
    return add_token(json, kind, word, size) != NULL;
}

static int read_number(Json *json) {
    double value;
    int is_integer;
    const char *start = json->at, *end = read_double(start, json->end, &value, &is_integer);
    if (!end || end - start > (is_integer ? MAX_INTEGER_TEXT : MAX_NUMBER_TEXT)) return 0;
    Token *token = add_token(json, NUMBER, start, (size_t)(end - start));
    if (!token) return 0;
    token->value = value;
    json->at = end;
    return 1;
}

static int read_value(Json *json, int depth);

static int read_object(Json *json, int depth) {
    const int32_t object = json->n_tokens;
    int32_t keys[MAX_OBJECT_KEYS];
    if (!add_token(json, OBJECT, json->at, 0)) return 0;
    for (int n_keys = 0; n_keys || !take(json, '}'); n_keys++) {
        if (n_keys == MAX_OBJECT_KEYS || !take(json, '"')) return 0;
        keys[n_keys] = json->n_tokens;
        if (!read_string(json, 0)) return 0;
        for (int i = 0; i < n_keys; i++)
            if (json->tokens[keys[i]].hash == json->tokens[keys[n_keys]].hash) return 0;
        if (!take(json, ':') || !read_value(json, depth + 1)) return 0;
        if (take(json, ',')) continue;
        if (!take(json, '}')) return 0;
        break;
    }
    json->tokens[object].next = json->n_tokens;
    return 1;
}

static int read_array(Json *json, int depth) {
    const int32_t array = json->n_tokens;
    if (!add_token(json, ARRAY, json->at, 0)) return 0;
    for (int n = 0; n || !take(json, ']'); n++) {
        if (!read_value(json, depth + 1)) return 0;
        if (take(json, ',')) continue;
        if (!take(json, ']')) return 0;
        break;
    }
    json->tokens[array].next = json->n_tokens;
    return 1;
}

static int read_value(Json *json, int depth) {
    skip_space(json);
    if (json->at == json->end || depth == MAX_JSON_DEPTH) return 0;
    switch (*json->at) {
    case '{': json->at++; return read_object(json, depth);
    case '[': json->at++; return read_array(json, depth);
    case '"': json->at++; return read_string(json, 1);
    case 't': return read_word(json, TRUE, "true", 4);
    case 'f': return read_word(json, FALSE, "false", 5);
    case 'n': return read_word(json, NIL, "null", 4);
    default: return read_number(json);
    }
}

/* Give back what an unusually large request took. */
static void trim_json(Json *json) {
    if (json->capacity <= KEPT_TOKENS) return;
    free(json->tokens);
    json->tokens = NULL;
    json->capacity = 0;
}

/* Read n bytes that are to be one value; return whether they are, in the part of JSON that is read here. Text that is not
   ASCII must still be shown to be UTF-8. */
static int read_json(Json *json, const char *bytes, size_t n) {
    json->n_tokens = 0;
    json->at = bytes;
    json->end = bytes + n;
    json->is_ascii = 1;
    if (!read_value(json, 0)) return 0;
    skip_space(json);
    return json->at == json->end;
}

#endif
