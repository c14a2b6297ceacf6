/* BLAKE2b with a digest of eight bytes and no key: RFC 7693, "The BLAKE2 Cryptographic Hash and Message Authentication
   Code (MAC)". Proven against Python's own hashlib. */

#ifndef TURNOUT_BLAKE2B_H
#define TURNOUT_BLAKE2B_H

#include <stdint.h>
#include <string.h>

#include "little.h"

#define BLOCK_BYTES 128
#define PERSON_BYTES 16

static const uint64_t BLAKE2B_START[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                                          0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                                          0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

static uint64_t rotate(uint64_t word, int n) { return word >> n | word << (64 - n); }

#define MIX(a, b, c, d, x, y)                                                                        \
    a += b + words[x], d = rotate(d ^ a, 32), c += d, b = rotate(b ^ c, 24);                          \
    a += b + words[y], d = rotate(d ^ a, 16), c += d, b = rotate(b ^ c, 63)
/* A round by the order of its words, which are constants so that everything stays in registers. */
#define ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)                   \
    MIX(v0, v4, v8, v12, s0, s1);                                                                    \
    MIX(v1, v5, v9, v13, s2, s3);                                                                    \
    MIX(v2, v6, v10, v14, s4, s5);                                                                   \
    MIX(v3, v7, v11, v15, s6, s7);                                                                   \
    MIX(v0, v5, v10, v15, s8, s9);                                                                   \
    MIX(v1, v6, v11, v12, s10, s11);                                                                 \
    MIX(v2, v7, v8, v13, s12, s13);                                                                  \
    MIX(v3, v4, v9, v14, s14, s15)

static void compress(uint64_t *state, const uint8_t *block, uint64_t n_bytes, int is_last) {
    uint64_t words[16];
    for (int i = 0; i < 16; i++) words[i] = read_little(block + 8 * i);
    uint64_t v0 = state[0], v1 = state[1], v2 = state[2], v3 = state[3], v4 = state[4], v5 = state[5], v6 = state[6];
    uint64_t v7 = state[7], v8 = BLAKE2B_START[0], v9 = BLAKE2B_START[1], v10 = BLAKE2B_START[2], v11 = BLAKE2B_START[3];
    uint64_t v12 = BLAKE2B_START[4] ^ n_bytes, v13 = BLAKE2B_START[5], v14 = BLAKE2B_START[6], v15 = BLAKE2B_START[7];
    if (is_last) v14 = ~v14;
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    state[0] ^= v0 ^ v8, state[1] ^= v1 ^ v9, state[2] ^= v2 ^ v10, state[3] ^= v3 ^ v11;
    state[4] ^= v4 ^ v12, state[5] ^= v5 ^ v13, state[6] ^= v6 ^ v14, state[7] ^= v7 ^ v15;
}

/* The digest of n bytes as a number, its first byte the highest; `person` names what it is for. */
static uint64_t blake2b(const uint8_t *bytes, size_t n, const char person[PERSON_BYTES]) {
    uint64_t state[8];
    uint8_t block[BLOCK_BYTES] = {0};
    size_t done = 0;
    memcpy(state, BLAKE2B_START, sizeof state);
    state[0] ^= 0x01010000u ^ sizeof(uint64_t);
    state[6] ^= read_little((const uint8_t *)person);
    state[7] ^= read_little((const uint8_t *)person + 8);
    for (; n - done > BLOCK_BYTES; done += BLOCK_BYTES) compress(state, bytes + done, done + BLOCK_BYTES, 0);
    memcpy(block, bytes + done, n - done);
    compress(state, block, n, 1);
    uint64_t digest = 0;
    for (int i = 0; i < 8; i++) digest = digest << 8 | (state[0] >> (8 * i) & 0xff);
    return digest;
}

#endif
