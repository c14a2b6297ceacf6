/* Instants in UTC as RFC 3339 writes them, to the microsecond; other ways of writing one are left to others. */

#ifndef TURNOUT_INSTANTS_H
#define TURNOUT_INSTANTS_H

#include "text.h"

static int read_digits(const char *at, int n, int *value) {
    for (*value = 0; n > 0; n--, at++) {
        if (!is_digit(*at)) return 0;
        *value = *value * 10 + (*at - '0');
    }
    return 1;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar; no year before 1, no month or day that there is not. */
static int count_days(int year, int month, int day, int64_t *days) {
    static const int BEFORE[13] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    if (year < 1 || month < 1 || month > 12) return 0;
    const int is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    const int length = BEFORE[month] - BEFORE[month - 1] + (month == 2 && is_leap);
    if (day < 1 || day > length) return 0;
    const int64_t before = year - 1;
    *days = before * 365 + before / 4 - before / 100 + before / 400 + BEFORE[month - 1] + (month > 2 && is_leap) + day - 1
            - 719162;
    return 1;
}

/* Microseconds from 1970 to "2026-11-25T12:00:00.123456Z", whose fraction may be shorter or not be there. */
static int read_instant(Text text, int64_t *us) {
    int year, month, day, hour, minute, second, fraction = 0;
    int64_t days;
    const char *at = text.at;
    if (text.size < 20 || text.size > 27 || at[text.size - 1] != 'Z' || at[4] != '-' || at[7] != '-' || at[10] != 'T'
        || at[13] != ':' || at[16] != ':' || !read_digits(at, 4, &year) || !read_digits(at + 5, 2, &month)
        || !read_digits(at + 8, 2, &day) || !read_digits(at + 11, 2, &hour) || !read_digits(at + 14, 2, &minute)
        || !read_digits(at + 17, 2, &second) || hour > 23 || minute > 59 || second > 59
        || !count_days(year, month, day, &days))
        return 0;
    if (text.size > 20) {
        const int n_digits = (int)text.size - 21;
        if (at[19] != '.' || !n_digits || !read_digits(at + 20, n_digits, &fraction)) return 0;
        for (int i = n_digits; i < 6; i++) fraction *= 10;
    }
    *us = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000 + fraction;
    return 1;
}

#endif
