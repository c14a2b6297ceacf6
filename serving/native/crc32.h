/* The CRC-32 of zlib, eight bytes at a time: Kounavis and Berry, "A Systematic Approach to Building High Performance Software-Based
   CRC Generators", 2005. Proven against Python's own zlib. */

#ifndef TURNOUT_CRC32_H
#define TURNOUT_CRC32_H

#include <stddef.h>
#include <stdint.h>

static uint32_t CRC_TABLES[8][256];

static void make_crc_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        CRC_TABLES[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t before = CRC_TABLES[table - 1][byte];
            CRC_TABLES[table][byte] = before >> 8 ^ CRC_TABLES[0][before & 0xff];
        }
}

static uint32_t crc32(const char *bytes, size_t n) {
    const unsigned char *at = (const unsigned char *)bytes;
    uint32_t crc = 0xffffffffu;
    for (; n >= 8; n -= 8, at += 8) {
        crc ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = CRC_TABLES[7][crc & 0xff] ^ CRC_TABLES[6][crc >> 8 & 0xff] ^ CRC_TABLES[5][crc >> 16 & 0xff]
              ^ CRC_TABLES[4][crc >> 24] ^ CRC_TABLES[3][at[4]] ^ CRC_TABLES[2][at[5]] ^ CRC_TABLES[1][at[6]]
              ^ CRC_TABLES[0][at[7]];
    }
    for (; n; n--, at++) crc = crc >> 8 ^ CRC_TABLES[0][(crc ^ *at) & 0xff];
    return ~crc;
}

#endif
