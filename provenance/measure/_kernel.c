/* Sums of squares of blocks of floats: the order of every addition, and what is summed, is stated
   in squares.py.

   Each function reads the bits of floats that may stand anywhere, little-endian, and writes the
   same bits as numpy does there: lanes do not depend on one another, so a compiler may compute as
   many at once as the processor has room for, and no addition changes its place. Build without
   -ffast-math and with -ffp-contract=off: a fused multiplication and addition rounds once.

   Of a block that holds NaN, infinity or a square beyond float64 the sum says so (it is NaN,
   infinite, or a magnitude is out of range), and numpy does it again. */

#include <stdint.h>
#include <string.h>

#ifndef CLONES /* given by the build where one library can hold code for several processors */
#define CLONES
#endif

/* clang does not by itself put these into code for another processor than the default one. */
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 256, ROW_LANES = 32, CAP = 4, STEPS = 4 };

/* What is found of each block of a vector; of the difference three sums of rows stand last. */
enum { LARGEST, TOTAL, CAPPED, BINADE, FILLED, REACHED, FIRST = CAPPED, LONGEST, LAST };

enum { FIELDS = REACHED + STEPS, MAX_BLOCK = 65536, STRIP = 4096, LEAST_BINADE = -1023, TOP_BINADE = 1024 };

typedef uint16_t u16 __attribute__((aligned(1), may_alias));
typedef uint32_t u32 __attribute__((aligned(1), may_alias));
typedef uint64_t u64 __attribute__((aligned(1), may_alias));

INLINE double f64(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE double f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Add the upper half of SUMS to the lower, until one is left. */
INLINE double halved(double *sums, int lanes) {
    for (int half = lanes / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
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

/* 2^BINADE, infinite beyond float64; BINADE is -1022 or more. */
INLINE double power(int binade) {
    return f64((uint64_t)(binade < TOP_BINADE ? binade + 1023 : 0x7FF) << 52);
}

/* Count the BINADES, each 1024 more than it is and 0 that of zero, which are at least LEAST. */
INLINE int64_t reach(const u16 *binades, int64_t count, int least) {
    int64_t total = 0;
    for (int64_t at = 0; at < count; at += STRIP) {
        int size = (int)(count - at < STRIP ? count - at : STRIP);
        uint16_t hits = 0;
        for (int i = 0; i < size; i++) hits += (int16_t)binades[at + i] >= (int16_t)(least + 1024);
        total += hits;
    }
    return total;
}

/* Of one type: DIGITS of a mantissa, the binades of the least NORMAL number and of the LEAST of all
   (float64's below the normal ones count as one), and the first that is TOO large. */
#define BASE(NAME, BITS, SIGNED, TOP, DIGITS, NORMAL, LEAST, TOO)                                 \
    /* Count the magnitudes of at least 2^BINADE. */                                              \
    INLINE int64_t reach_##NAME(const BITS *side, int64_t count, int binade) {                    \
        SIGNED least = (SIGNED)(binade < NORMAL ? (SIGNED)1 << (binade < NORMAL ? binade - LEAST : 0) \
                                                : (SIGNED)(binade - NORMAL + 1) << DIGITS);       \
        int64_t total = 0;                                                                        \
        for (int64_t at = 0; at < count; at += STRIP) {                                           \
            int size = (int)(count - at < STRIP ? count - at : STRIP);                            \
            BITS hits = 0;                                                                        \
            for (int i = 0; i < size; i++) hits += (SIGNED)(side[at + i] & (BITS)~TOP) >= least;  \
            total += hits;                                                                        \
        }                                                                                         \
        return total;                                                                             \
    }                                                                                             \
                                                                                                  \
    INLINE double capped_##NAME(const BITS *side, const BITS *initial, int64_t count, double cap) { \
        double sums[LANES] = {0};                                                                 \
        for (int64_t at = 0; at < count; at += LANES) {                                           \
            int size = (int)(count - at < LANES ? count - at : LANES);                            \
            for (int lane = 0; lane < size; lane++) {                                             \
                double value = NAME(side[at + lane]);                                             \
                value = __builtin_fabs(initial ? value - NAME(initial[at + lane]) : value);       \
                value = value < cap ? value : cap;                                                \
                sums[lane] += value * value;                                                      \
            }                                                                                     \
        }                                                                                         \
        return halved(sums, LANES);                                                               \
    }                                                                                             \
                                                                                                  \
    /* Find what a block adds to a base, whose largest magnitude and sum are known. The GUESS is  \
       the binade of the block before. */                                                         \
    INLINE int base_##NAME(const BITS *side, const BITS *initial, int64_t count, int guess,       \
                           double *found, int64_t blocks) {                                       \
        u16 binades[MAX_BLOCK];                                                                   \
        if (initial)                                                                              \
            for (int64_t i = 0; i < count; i++) {                                                 \
                uint64_t bits = bits_of(NAME(side[i]) - NAME(initial[i])) << 1;                   \
                binades[i] = (u16)((bits >> 53) + (bits > 0));                                    \
            }                                                                                     \
        int least = initial ? LEAST_BINADE : LEAST, low = least, high = initial ? TOP_BINADE : TOO; \
        int64_t filled = initial ? reach(binades, count, low) : reach_##NAME(side, count, low);   \
        int64_t reached = filled;                                                                 \
        for (int tries = 0; filled && high - low > 1; tries++) {                                  \
            int middle = tries < 2 && low < guess && guess < high ? guess : low + (high - low) / 2; \
            int64_t more = initial ? reach(binades, count, middle) : reach_##NAME(side, count, middle); \
            guess = 2 * more > filled ? middle + 1 : middle - 1;                                  \
            if (2 * more > filled) low = middle, reached = more;                                  \
            else high = middle;                                                                   \
        }                                                                                         \
        double cap = power(low + CAP);                                                            \
        found[CAPPED * blocks] = found[LARGEST * blocks] > cap                                    \
                                     ? capped_##NAME(side, initial, count, cap)                   \
                                     : found[TOTAL * blocks];                                     \
        found[BINADE * blocks] = low;                                                             \
        found[FILLED * blocks] = (double)filled;                                                  \
        for (int step = 0; step < STEPS; step++) {                                                \
            int at = low - step;                                                                  \
            if (step) reached = at <= least ? filled : initial ? reach(binades, count, at)        \
                                                               : reach_##NAME(side, count, at);   \
            found[(REACHED + step) * blocks] = (double)reached;                                   \
        }                                                                                         \
        return low;                                                                               \
    }                                                                                             \
                                                                                                  \
    INLINE double row_##NAME(const BITS *left, const BITS *right, int64_t count) {                \
        double sums[ROW_LANES] = {0};                                                             \
        int lanes = ROW_LANES;                                                                    \
        int64_t at = 0;                                                                           \
        for (; at + ROW_LANES <= count; at += ROW_LANES)                                          \
            for (int lane = 0; lane < ROW_LANES; lane++) {                                        \
                double gap = NAME(left[at + lane]) - NAME(right[at + lane]);                      \
                sums[lane] += gap * gap;                                                          \
            }                                                                                     \
        for (int lane = 0; lane < count - at; lane++) {                                           \
            double gap = NAME(left[at + lane]) - NAME(right[at + lane]);                          \
            sums[lane] += gap * gap;                                                              \
        }                                                                                         \
        while (lanes > 1 && lanes / 2 >= count) lanes /= 2; /* the others are zero */             \
        return halved(sums, lanes);                                                               \
    }                                                                                             \
                                                                                                  \
    /* Find the sums of the first ROW in a block, of which BEFORE stand elsewhere, of the longest \
       between, and of the last. */                                                               \
    INLINE void rows_##NAME(const BITS *left, const BITS *right, int64_t count, int64_t row,      \
                            int64_t before, double *found, int64_t blocks) {                      \
        int64_t at = row - before < count ? row - before : count;                                 \
        double longest = 0;                                                                       \
        found[FIRST * blocks] = row_##NAME(left, right, at);                                      \
        for (; at + row <= count; at += row) {                                                    \
            double sum = row_##NAME(left + at, right + at, row);                                  \
            longest = sum > longest ? sum : longest;                                              \
        }                                                                                         \
        found[LONGEST * blocks] = longest;                                                        \
        found[LAST * blocks] = row_##NAME(left + at, right + at, count - at);                     \
    }

/* Find of each block of each vector (difference, left, right, and with UPDATES what left and right
   are beyond initial) what is listed above, in rows of BLOCKS numbers. A ROW of a tensor has as
   many values, of which BEFORE stand before the first; 0: they are not asked for. Return whether
   two elements are zeros of two signs. */
#define SQUARES(NAME, BITS, UPDATES)                                                              \
    CLONES int NAME##_##UPDATES(const BITS *restrict left, const BITS *restrict right,            \
                                const BITS *restrict initial, int64_t count, int64_t block,       \
                                int64_t row, int64_t before, double *restrict found) {            \
        enum { VECTORS = UPDATES ? 5 : 3 };                                                       \
        int64_t blocks = (count + block - 1) / block;                                             \
        int signs = 0, guesses[VECTORS] = {0};                                                    \
        for (int64_t number = 0; number < blocks; number++) {                                     \
            double sums[VECTORS][LANES] = {{0}}, most[VECTORS][LANES] = {{0}};                    \
            int64_t zeros[LANES] = {0};                                                           \
            int64_t begin = number * block, end = begin + block < count ? begin + block : count;  \
            int64_t at = begin, size = end - begin;                                               \
            for (; at + LANES <= end; at += LANES) ADD_ROW(BITS, NAME, UPDATES, at, LANES)        \
            ADD_ROW(BITS, NAME, UPDATES, at, (int)(end - at))                                     \
            for (int lane = 0; lane < LANES; lane++) signs |= zeros[lane] != 0;                   \
            for (int vector = 0; vector < VECTORS; vector++) {                                    \
                double *part = found + vector * FIELDS * blocks + number, largest = 0;            \
                for (int lane = 0; lane < LANES; lane++)                                          \
                    largest = most[vector][lane] > largest ? most[vector][lane] : largest;        \
                part[LARGEST * blocks] = largest;                                                 \
                part[TOTAL * blocks] = halved(sums[vector], LANES);                               \
                if (vector > 2)                                                                   \
                    guesses[vector] = base_##NAME((vector == 3 ? left : right) + begin,           \
                                                  initial + begin, size, guesses[vector], part, blocks); \
                else if (vector)                                                                  \
                    guesses[vector] = base_##NAME((vector == 1 ? left : right) + begin, 0, size,  \
                                                  guesses[vector], part, blocks);                 \
                else if (row && largest > 0)                                                      \
                    rows_##NAME(left + begin, right + begin, size, row, (before + begin) % row,   \
                                part, blocks);                                                    \
                else                                                                              \
                    part[FIRST * blocks] = part[LONGEST * blocks] = part[LAST * blocks] = 0;      \
            }                                                                                     \
        }                                                                                         \
        return signs;                                                                             \
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

#define TYPE(NAME, BITS, SIGNED, TOP, DIGITS, NORMAL, LEAST, TOO)       \
    BASE(NAME, BITS, SIGNED, (BITS)TOP, DIGITS, NORMAL, LEAST, TOO)     \
    SQUARES(NAME, BITS, 0)                                              \
    SQUARES(NAME, BITS, 1)                                              \
    APART(apart_##NAME, BITS, (BITS)TOP)

TYPE(bf16, u16, int16_t, 0x8000, 7, -126, -133, 128)
TYPE(f16, u16, int16_t, 0x8000, 10, -14, -24, 16)
TYPE(f32, u32, int32_t, 0x80000000u, 23, -126, -149, 128)
TYPE(f64, u64, int64_t, 0x8000000000000000u, 52, -1022, -1023, 1024)
