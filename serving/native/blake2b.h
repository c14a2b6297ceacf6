/* BLAKE2b with a digest of eight bytes and no key: RFC 7693, "The BLAKE2 Cryptographic Hash and Message Authentication
   Code (MAC)". Proven against Python's own hashlib. */

#ifndef TURNOUT_BLAKE2B_H
#define TURNOUT_BLAKE2B_H

#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES 128
#define PERSON_BYTES 16

static const uint64_t BLAKE2B_START[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu,
                                          0xa54ff53a5f1d36f1u, 0x510e527fade682d1u, 0x9b05688c2b3e6c1fu,
                                          0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};
static const uint8_t BLAKE2B_ORDER[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint64_t read_little(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) word = word << 8 | bytes[i];
    return word;
}

static uint64_t rotate(uint64_t word, int n) { return word >> n | word << (64 - n); }

static void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 63);
}

static void compress(uint64_t *state, const uint8_t *block, uint64_t n_bytes, int is_last) {
    uint64_t v[16], words[16];
    for (int i = 0; i < 16; i++) words[i] = read_little(block + 8 * i);
    for (int i = 0; i < 8; i++) v[i] = state[i], v[i + 8] = BLAKE2B_START[i];
    v[12] ^= n_bytes;
    if (is_last) v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *order = BLAKE2B_ORDER[round % 10];
        for (int i = 0; i < 4; i++) mix(v, i, i + 4, i + 8, i + 12, words[order[2 * i]], words[order[2 * i + 1]]);
        for (int i = 0; i < 4; i++)
            mix(v, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, words[order[2 * i + 8]], words[order[2 * i + 9]]);
    }
    for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
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
