/* np_scan.h - finds the next byte of interest, sixteen at a time.
 *
 * Purpose   What takes the time in a head is looking at every byte of it. Three loops do most of
 *           that: np_scan_value stops at what ends a field value or may not stand in one,
 *           np_scan_visible at what ends a name or a query, np_scan_path at what ends a path.
 * Shape     SSE2 and NEON belong to the base of x86-64 and aarch64, so nothing is chosen at run
 *           time; other machines take the loop over bytes, which is the end of every scan anyway.
 * Memory    Nothing is read at `end` or behind it.
 * Threads   Any.
 */
#ifndef NP_SCAN_H
#define NP_SCAN_H

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum {
    NP_SCAN_TAB = '\t',
    NP_SCAN_DEL = 0x7f,
    NP_SCAN_STEP_BYTES = 16,
};

static inline int np_scan_is_control(uint8_t c)
{
    return (c < 0x20 && c != NP_SCAN_TAB) || c == NP_SCAN_DEL;
}

static inline int np_scan_is_visible(uint8_t c)
{
    return c > 0x20 && c < NP_SCAN_DEL;
}

#if defined(__SSE2__)

/* Bit i: byte i is a control other than a tab. */
static inline uint64_t np_scan_controls(const uint8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    __m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(NP_SCAN_TAB));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(NP_SCAN_DEL));
    return (uint64_t)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, low), del));
}

/* Bit i: byte i is not visible, or is `stop`. Bytes from 0x80 on are negative, so below 0x21. */
static inline uint64_t np_scan_stops(const uint8_t *p, uint8_t stop)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    __m128i hidden = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x21));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(NP_SCAN_DEL));
    __m128i found = _mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)stop));
    return (uint64_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(hidden, del), found));
}

/* Bit i: byte i is '#', '?' or '%'. */
static inline uint64_t np_scan_marks(const uint8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    __m128i hash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('#'));
    __m128i question = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('?'));
    __m128i percent = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('%'));
    return (uint64_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(hash, question), percent));
}

static inline unsigned np_scan_first(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits);
}

#elif defined(__aarch64__)

/* Four bits for each byte. */
static inline uint64_t np_scan_bits(uint8x16_t found)
{
    uint8x8_t narrow = vshrn_n_u16(vreinterpretq_u16_u8(found), 4);
    return vget_lane_u64(vreinterpret_u64_u8(narrow), 0);
}

static inline uint64_t np_scan_controls(const uint8_t *p)
{
    uint8x16_t bytes = vld1q_u8(p);
    uint8x16_t low = vcltq_u8(bytes, vdupq_n_u8(0x20));
    uint8x16_t tab = vceqq_u8(bytes, vdupq_n_u8(NP_SCAN_TAB));
    uint8x16_t del = vceqq_u8(bytes, vdupq_n_u8(NP_SCAN_DEL));
    return np_scan_bits(vorrq_u8(vbicq_u8(low, tab), del));
}

static inline uint64_t np_scan_stops(const uint8_t *p, uint8_t stop)
{
    uint8x16_t bytes = vld1q_u8(p);
    uint8x16_t low = vcltq_u8(bytes, vdupq_n_u8(0x21));
    uint8x16_t high = vcgeq_u8(bytes, vdupq_n_u8(NP_SCAN_DEL));
    uint8x16_t found = vceqq_u8(bytes, vdupq_n_u8(stop));
    return np_scan_bits(vorrq_u8(vorrq_u8(low, high), found));
}

static inline uint64_t np_scan_marks(const uint8_t *p)
{
    uint8x16_t bytes = vld1q_u8(p);
    uint8x16_t hash = vceqq_u8(bytes, vdupq_n_u8('#'));
    uint8x16_t question = vceqq_u8(bytes, vdupq_n_u8('?'));
    uint8x16_t percent = vceqq_u8(bytes, vdupq_n_u8('%'));
    return np_scan_bits(vorrq_u8(vorrq_u8(hash, question), percent));
}

static inline unsigned np_scan_first(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits) >> 2;
}

#endif

/* The first byte that may not stand in a field value (a control other than a tab); or `end`. */
static inline const uint8_t *np_scan_value(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__) || defined(__aarch64__)
    for (; end - p >= NP_SCAN_STEP_BYTES; p += NP_SCAN_STEP_BYTES) {
        uint64_t bits = np_scan_controls(p);
        if (bits)
            return p + np_scan_first(bits);
    }
#endif
    while (p < end && !np_scan_is_control(*p))
        p++;
    return p;
}

/* The first byte that is not visible ASCII, or is `stop`; or `end`. */
static inline const uint8_t *np_scan_visible(const uint8_t *p, const uint8_t *end, uint8_t stop)
{
#if defined(__SSE2__) || defined(__aarch64__)
    for (; end - p >= NP_SCAN_STEP_BYTES; p += NP_SCAN_STEP_BYTES) {
        uint64_t bits = np_scan_stops(p, stop);
        if (bits)
            return p + np_scan_first(bits);
    }
#endif
    while (p < end && np_scan_is_visible(*p) && *p != stop)
        p++;
    return p;
}

/* The first byte that is not visible ASCII, or is '#', '?' or '%'; or `end`. */
static inline const uint8_t *np_scan_path(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__) || defined(__aarch64__)
    for (; end - p >= NP_SCAN_STEP_BYTES; p += NP_SCAN_STEP_BYTES) {
        uint64_t bits = np_scan_stops(p, ' ') | np_scan_marks(p);
        if (bits)
            return p + np_scan_first(bits);
    }
#endif
    while (p < end && np_scan_is_visible(*p) && *p != '#' && *p != '?' && *p != '%')
        p++;
    return p;
}

#endif
