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

#define MAX_INSTANT_TEXT 30

static char *write_digits(char *at, int64_t value, int n) {
    for (int i = n - 1; i >= 0; i--, value /= 10) at[i] = (char)('0' + value % 10);
    return at + n;
}

/* The date so many days after 1970-01-01. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013: eras of 400
   years that begin in March. */
static char *write_date(char *at, int64_t days) {
    const int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    const int64_t day_of_era = shifted - era * 146097;
    const int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t month = (5 * day_of_year + 2) / 153; /* from March on */
    at = write_digits(at, year_of_era + era * 400 + (month >= 10), 4);
    *at++ = '-';
    at = write_digits(at, month < 10 ? month + 3 : month - 9, 2);
    *at++ = '-';
    return write_digits(at, day_of_year - (153 * month + 2) / 5 + 1, 2);
}

/* An instant of the years 1 to 9999 as a JSON string, without a fraction where that is zero; `text` holds MAX_INSTANT_TEXT bytes. */
static size_t write_instant(int64_t us, char *text) {
    const int64_t DAY_US = 86400000000;
    int64_t days = us / DAY_US, left = us % DAY_US;
    if (left < 0) days--, left += DAY_US;
    char *at = text;
    *at++ = '"';
    at = write_date(at, days);
    const int64_t seconds = left / 1000000;
    const int64_t parts[] = {seconds / 3600, seconds / 60 % 60, seconds % 60};
    for (int i = 0; i < 3; i++) {
        *at++ = i ? ':' : 'T';
        at = write_digits(at, parts[i], 2);
    }
    if (left % 1000000) {
        *at++ = '.';
        at = write_digits(at, left % 1000000, 6);
    }
    *at++ = 'Z';
    *at++ = '"';
    return (size_t)(at - text);
}

#endif
