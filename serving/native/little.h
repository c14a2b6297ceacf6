/* Eight bytes as a number, the first the lowest: written out so that compilers make one load of it. */

#ifndef TURNOUT_LITTLE_H
#define TURNOUT_LITTLE_H

#include <stdint.h>

static inline uint64_t read_little(const void *at) {
    const uint8_t *bytes = at;
    return (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16 | (uint64_t)bytes[3] << 24
           | (uint64_t)bytes[4] << 32 | (uint64_t)bytes[5] << 40 | (uint64_t)bytes[6] << 48 | (uint64_t)bytes[7] << 56;
}

#endif
