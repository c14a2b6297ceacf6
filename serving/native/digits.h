/* Numbers from JSON text and to it, exact in both directions: what is written reads back as the same double. */

#ifndef TURNOUT_DIGITS_H
#define TURNOUT_DIGITS_H

#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_NUMBER_TEXT 63 /* characters of a number; with more, somebody else reads it */
#define MAX_DOUBLE_TEXT 40
#define EXACT_POWERS 23 /* 10^0 to 10^22 are doubles */

static const double POWERS[EXACT_POWERS] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                            1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t EXACT = (uint64_t)1 << 53; /* integers up to this are doubles */

static int is_digit(char sign) { return sign >= '0' && sign <= '9'; }

static int read_slowly(const char *text, size_t size, double *value) {
    char copy[MAX_NUMBER_TEXT + 1];
    if (size > MAX_NUMBER_TEXT) return 0;
    memcpy(copy, text, size);
    copy[size] = 0;
    *value = PyOS_string_to_double(copy, NULL, NULL);
    if (*value == -1.0 && PyErr_Occurred()) PyErr_Clear();
    return isfinite(*value);
}

#ifdef __SIZEOF_INT128__
static uint64_t raise_ten(int power) {
    static const uint64_t TENS[] = {1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u,
                                    10000000000u, 100000000000u, 1000000000000u, 10000000000000u, 100000000000000u,
                                    1000000000000000u, 10000000000000000u, 100000000000000000u, 1000000000000000000u,
                                    10000000000000000000u};
    return TENS[power];
}

/* significand / 10^power, for 0 < power < 20 and a significand above 0: the quotient to more bits than a double has, and
   whether anything is left, decide how it is rounded; ties go to the even. */
static double divide_exactly(uint64_t significand, int power) {
    const int shift = 64 + __builtin_clzll(significand);
    const unsigned __int128 dividend = (unsigned __int128)significand << shift;
    const unsigned __int128 quotient = dividend / raise_ten(power);
    const uint64_t high = (uint64_t)(quotient >> 64), low = (uint64_t)quotient;
    const int n_bits = high ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll(low);
    const int n_dropped = n_bits - 54; /* one bit more than is kept: a half */
    uint64_t kept = (uint64_t)(quotient >> n_dropped);
    const int is_exact = (unsigned __int128)kept << n_dropped == quotient && quotient * raise_ten(power) == dividend;
    if ((kept & 1) && (!is_exact || (kept & 2))) kept++;
    return ldexp((double)(kept >> 1), n_dropped + 1 - shift);
}
#endif

/* Read the JSON number that begins at `at`; return its end, NULL where there is none or it is not a finite double of few
   digits.

   A significand and a power of ten that are both doubles give the nearest double by one operation. Source: William D.
   Clinger, "How to read floating point numbers accurately", 1990. */
static const char *read_double(const char *at, const char *end, double *value, int *is_integer) {
    const char *start = at;
    const int is_negative = at < end && *at == '-';
    uint64_t significand = 0;
    int exponent = 0, power = 0, n_digits = 0;
    at += is_negative;
    const char *digits = at;
    for (; at < end && is_digit(*at); at++, n_digits++) significand = significand * 10 + (uint64_t)(*at - '0');
    if (!n_digits || (*digits == '0' && n_digits > 1)) return NULL;
    *is_integer = 1;
    if (at < end && *at == '.') {
        const char *point = at++;
        for (; at < end && is_digit(*at); at++, exponent--) significand = significand * 10 + (uint64_t)(*at - '0');
        if (at == point + 1) return NULL;
        n_digits -= exponent;
        *is_integer = 0;
    }
    if (at < end && (*at | 0x20) == 'e') {
        const int sign = at + 1 < end && at[1] == '-' ? -1 : 1;
        at += at + 1 < end && (at[1] == '-' || at[1] == '+') ? 2 : 1;
        const char *first = at;
        for (; at < end && is_digit(*at); at++) power = power < 1000 ? power * 10 + (*at - '0') : power;
        if (at == first) return NULL;
        exponent += sign * power;
        *is_integer = 0;
    }
    if (n_digits > 19) return read_slowly(start, (size_t)(at - start), value) ? at : NULL; /* it may have overflowed */
    if (significand <= EXACT && exponent > -EXACT_POWERS && exponent < EXACT_POWERS)
        *value = exponent < 0 ? (double)significand / POWERS[-exponent] : (double)significand * POWERS[exponent];
#ifdef __SIZEOF_INT128__
    else if (exponent < 0 && exponent > -20)
        *value = divide_exactly(significand, -exponent);
#endif
    else
        return read_slowly(start, (size_t)(at - start), value) ? at : NULL;
    if (is_negative) *value = -*value;
    return at;
}

/* Write an integer in at least `n_least` digits, fewer than MAX_DOUBLE_TEXT, two at a time; return the length. */
static size_t write_integer(uint64_t integer, int n_least, char *out) {
    static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                                "4950515253545556575859606162636465666768697071727374757677787980818283848586878889909192939495969798"
                                "99";
    char text[MAX_DOUBLE_TEXT], *at = text + sizeof text;
    for (; integer >= 10; integer /= 100) memcpy(at -= 2, PAIRS + 2 * (integer % 100), 2);
    if (integer) *--at = (char)('0' + integer);
    while (text + sizeof text - at < n_least) *--at = '0';
    const size_t size = (size_t)(text + sizeof text - at);
    memcpy(out, at, size);
    return size;
}

/* Write `digits` with `n_decimals` of them behind the point, and no zeros behind that but one; return the length. */
static size_t write_decimal(uint64_t digits, int n_decimals, char *out) {
    for (; n_decimals > 1 && digits % 10 == 0; n_decimals--) digits /= 10;
    const size_t size = write_integer(digits, n_decimals + 1, out);
    if (!n_decimals) {
        memcpy(out + size, ".0", 2);
        return size + 2;
    }
    char *point = out + size - n_decimals;
    memmove(point + 1, point, (size_t)n_decimals);
    *point = '.';
    return size + 1;
}

static size_t write_slowly(double value, char *out) {
    char *text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (!text) { PyErr_Clear(); return 0; }
    const size_t size = strlen(text);
    if (size <= MAX_DOUBLE_TEXT) memcpy(out, text, size);
    PyMem_Free(text);
    return size <= MAX_DOUBLE_TEXT ? size : 0;
}

#ifdef __SIZEOF_INT128__
/* As write_double, for 1e-6 <= value < 1e15: the value times a power of ten is exact in 128 bits, and rounded to 17 digits
   it always reads back; 15 or 16 digits are written where they do. */
static size_t write_common(double value, char *out) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint64_t significand = (bits & (EXACT / 2 - 1)) | EXACT / 2;
    const int shift = 1075 - (int)(bits >> 52);
    int magnitude = -6; /* the place of the first digit */
    while (magnitude < 15 && value >= (magnitude < -1 ? 1.0 / POWERS[-magnitude - 1] : POWERS[magnitude + 1])) magnitude++;
    int n_decimals = 16 - magnitude;
    unsigned __int128 product = (unsigned __int128)significand * raise_ten(n_decimals < 20 ? n_decimals : 19);
    if (n_decimals > 19) product *= raise_ten(n_decimals - 19);
    uint64_t digits = (uint64_t)((product + ((unsigned __int128)1 << (shift - 1))) >> shift);
    for (uint64_t fewer = 100; fewer > 1; fewer /= 10) {
        const int n_fewer = n_decimals - (fewer == 100 ? 2 : 1);
        const uint64_t rounded = (digits + fewer / 2) / fewer;
        if (n_fewer >= 0 && rounded <= EXACT && (double)rounded / POWERS[n_fewer] == value)
            return write_decimal(rounded, n_fewer, out);
    }
    return write_decimal(digits, n_decimals, out);
}
#endif

/* Write a finite double as JSON; return its length, at most MAX_DOUBLE_TEXT, or 0 where it cannot be written. */
static size_t write_double(double value, char *out) {
    size_t n_signs = 0;
    if (signbit(value)) {
        out[n_signs++] = '-';
        value = -value;
    }
    if (value < 1e15 && value == (double)(uint64_t)value) return n_signs + write_decimal((uint64_t)value, 0, out + n_signs);
#ifdef __SIZEOF_INT128__
    if (value >= 1e-6 && value < 1e15) return n_signs + write_common(value, out + n_signs);
#endif
    const size_t size = write_slowly(value, out + n_signs);
    return size ? n_signs + size : 0;
}

#endif
