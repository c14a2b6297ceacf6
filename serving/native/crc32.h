/* The CRC-32 of zlib, eight bytes at a time: Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based
   CRC Generators", 2005; and of long text three pieces side by side, whose sums are then joined: after Mark Adler, "crc32c.c".
   Proven against Python's own zlib. */

#ifndef TURNOUT_CRC32_H
#define TURNOUT_CRC32_H

#include <stddef.h>
#include <stdint.h>

#define PIECE_BYTES 256

static uint32_t CRC_TABLES[8][256];
static uint32_t CRC_PAST[4][256]; /* what a byte of a sum becomes when a piece of zeros follows */

static uint32_t step_crc(uint32_t crc, unsigned char byte) { return crc >> 8 ^ CRC_TABLES[0][(crc ^ byte) & 0xff]; }

static void make_crc_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        CRC_TABLES[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++) CRC_TABLES[table][byte] = step_crc(CRC_TABLES[table - 1][byte], 0);
    for (int place = 0; place < 4; place++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = byte << 8 * place;
            for (int i = 0; i < PIECE_BYTES; i++) crc = step_crc(crc, 0);
            CRC_PAST[place][byte] = crc;
        }
}

static uint32_t step_crc_by_eight(uint32_t crc, const unsigned char *at) {
    crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    return CRC_TABLES[7][crc & 0xff] ^ CRC_TABLES[6][crc >> 8 & 0xff] ^ CRC_TABLES[5][crc >> 16 & 0xff]
           ^ CRC_TABLES[4][crc >> 24] ^ CRC_TABLES[3][at[4]] ^ CRC_TABLES[2][at[5]] ^ CRC_TABLES[1][at[6]]
           ^ CRC_TABLES[0][at[7]];
}

static uint32_t pass_piece(uint32_t crc) {
    return CRC_PAST[0][crc & 0xff] ^ CRC_PAST[1][crc >> 8 & 0xff] ^ CRC_PAST[2][crc >> 16 & 0xff] ^ CRC_PAST[3][crc >> 24];
}

static uint32_t crc32(const char *bytes, size_t n) {
    const unsigned char *at = (const unsigned char *)bytes;
    uint32_t crc = 0xffffffffu;
    for (; n >= 3 * PIECE_BYTES; n -= 3 * PIECE_BYTES, at += 3 * PIECE_BYTES) {
        uint32_t second = 0, third = 0;
        for (int i = 0; i < PIECE_BYTES; i += 8) { /* none waits for another */
            crc = step_crc_by_eight(crc, at + i);
            second = step_crc_by_eight(second, at + PIECE_BYTES + i);
            third = step_crc_by_eight(third, at + 2 * PIECE_BYTES + i);
        }
        crc = pass_piece(pass_piece(crc) ^ second) ^ third;
    }
    for (; n >= 8; n -= 8, at += 8) crc = step_crc_by_eight(crc, at);
    for (; n; n--, at++) crc = step_crc(crc, *at);
    return ~crc;
}

#endif
