/* Loops that are compiled twice, so that one file serves old processors and new. */

#ifndef TURNOUT_CLONES_H
#define TURNOUT_CLONES_H

/* Where compiler and C library choose between two compiled forms of a function by what the processor has. */
#if defined(__GLIBC__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

#endif
