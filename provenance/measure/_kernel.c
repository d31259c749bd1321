/* Sums of squares of blocks of floats: the order of every addition is stated in squares.py.

   Each function reads the bits of floats that may stand anywhere, little-endian, and writes the
   same bits as numpy does there: lanes do not depend on one another, so a compiler may compute as
   many at once as the processor has room for, and no addition changes its place. Build without
   -ffast-math and with -ffp-contract=off: a fused multiplication and addition rounds once.

   Of a block that holds NaN, infinity or a square beyond float64 the sum says so (it is NaN,
   infinite, or the largest value is out of range), and numpy does it again. */

#include <stdint.h>
#include <string.h>

#ifndef CLONES /* given by the build where one library can hold code for several processors */
#define CLONES
#endif

/* clang does not by itself put these into code for another processor than the default one. */
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 256 };

typedef uint16_t u16 __attribute__((aligned(1), may_alias));
typedef uint32_t u32 __attribute__((aligned(1), may_alias));
typedef uint64_t u64 __attribute__((aligned(1), may_alias));

INLINE double f64(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE double f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE double bf16(uint16_t bits) { return f32((uint32_t)bits << 16); }

/* The magnitude moves to a float32's place, and 2^112 corrects the bias. Infinity and NaN, with
   magnitudes from 0x7C00 on, get the largest exponent and keep their payload. */
INLINE double f16(uint16_t bits) {
    uint32_t magnitude = (uint32_t)(bits & 0x7FFF) << 13;
    uint32_t special = magnitude >= 0x7C00u << 13 ? 0x70000000u : 0;
    return f32(((uint32_t)(bits & 0x8000) << 16) | (magnitude + special)) * 0x1p112;
}

/* Add the square of VALUE to the vector V, and keep the largest magnitude; NaN is not kept. */
#define ADD(V, VALUE)                                             \
    do {                                                          \
        double value = (VALUE), size = __builtin_fabs(value); \
        sums[V][lane] += value * value;                           \
        most[V][lane] = size > most[V][lane] ? size : most[V][lane]; \
    } while (0)

/* Add the elements from AT on to the first COUNT lanes. */
#define ADD_ROW(BITS, FLOAT, UPDATES, AT, COUNT)                           \
    for (int lane = 0; lane < (COUNT); lane++) {                           \
        BITS one = left[(AT) + lane], two = right[(AT) + lane];            \
        double a = FLOAT(one), b = FLOAT(two);                             \
        ADD(0, a - b);                                                     \
        ADD(1, a);                                                         \
        ADD(2, b);                                                         \
        if (UPDATES) {                                                     \
            double start = FLOAT(initial[(AT) + lane]);                    \
            ADD(3, a - start);                                             \
            ADD(4, b - start);                                             \
        }                                                                  \
        zeros[lane] |= one != two && a == b;                               \
    }

/* Write the largest magnitude and the sum of squares of each block of each vector: difference,
   left, right, and with UPDATES what left and right are beyond initial. Return whether two
   elements are zeros of two signs. */
#define SQUARES(NAME, BITS, FLOAT, UPDATES)                                                       \
    CLONES int NAME(const BITS *restrict left, const BITS *restrict right,                        \
                    const BITS *restrict initial, int64_t count, int64_t block,                   \
                    double *restrict largest, double *restrict totals) {                          \
        enum { VECTORS = UPDATES ? 5 : 3 };                                                       \
        int64_t blocks = (count + block - 1) / block;                                             \
        int found = 0;                                                                            \
        for (int64_t number = 0; number < blocks; number++) {                                     \
            double sums[VECTORS][LANES] = {{0}}, most[VECTORS][LANES] = {{0}};                    \
            int64_t zeros[LANES] = {0};                                                           \
            int64_t at = number * block, end = at + block < count ? at + block : count;           \
            for (; at + LANES <= end; at += LANES) ADD_ROW(BITS, FLOAT, UPDATES, at, LANES)       \
            ADD_ROW(BITS, FLOAT, UPDATES, at, (int)(end - at))                                    \
            for (int vector = 0; vector < VECTORS; vector++) {                                    \
                double *sum = sums[vector], *size = most[vector];                                 \
                for (int half = LANES / 2; half; half /= 2)                                       \
                    for (int lane = 0; lane < half; lane++) {                                     \
                        sum[lane] += sum[lane + half];                                            \
                        size[lane] = size[lane + half] > size[lane] ? size[lane + half] : size[lane]; \
                    }                                                                             \
                totals[vector * blocks + number] = sum[0];                                        \
                largest[vector * blocks + number] = size[0];                                      \
            }                                                                                     \
            for (int lane = 0; lane < LANES; lane++) found |= zeros[lane] != 0;                   \
        }                                                                                         \
        return found;                                                                             \
    }

/* Return the most representable values between two elements: their bits as unsigned integers in
   the order of the values. */
#define APART(NAME, BITS, TOP)                                                     \
    CLONES uint64_t NAME(const BITS *restrict left, const BITS *restrict right, int64_t count) { \
        BITS most = 0;                                                             \
        for (int64_t at = 0; at < count; at++) {                                   \
            BITS one = left[at], two = right[at];                                  \
            one = one & TOP ? ~one : one | TOP;                                    \
            two = two & TOP ? ~two : two | TOP;                                    \
            BITS apart = one > two ? one - two : two - one;                        \
            most = apart > most ? apart : most;                                    \
        }                                                                          \
        return most;                                                               \
    }

#define TYPE(NAME, BITS, TOP)                   \
    SQUARES(squares_##NAME, BITS, NAME, 0)      \
    SQUARES(updates_##NAME, BITS, NAME, 1)      \
    APART(apart_##NAME, BITS, (BITS)TOP)

TYPE(bf16, u16, 0x8000)
TYPE(f16, u16, 0x8000)
TYPE(f32, u32, 0x80000000u)
TYPE(f64, u64, 0x8000000000000000u)
