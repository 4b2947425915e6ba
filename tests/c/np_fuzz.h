/* np_fuzz.h - what the fuzz targets share: choices out of an input, and a driver without libFuzzer.
 *
 * Purpose   A target is one function of bytes that nobody wrote. It takes them as input of a parser
 *           or as a list of steps, and compares each result with a model that is too simple to be
 *           wrong; NP_ASSERT ends it when they differ. A target keeps nothing between two inputs,
 *           so that an input that failed fails again.
 * Two ways  `make fuzz` lets libFuzzer find the inputs, where clang is (NP_LIBFUZZER). Elsewhere,
 *           and in `make test`, np_fuzz.c has a main() that mutates the corpus by a seeded source:
 *               fuzz_NAME corpus/NAME [corpus/NAME.dict]     NP_FUZZ_RUNS, NP_FUZZ_S
 *               fuzz_NAME crash-fuzz_NAME                    one input, once more
 * Threads   One.
 */
#ifndef NP_FUZZ_H
#define NP_FUZZ_H

#include "np_test.h"

#include "base/np_assert.h"

enum { NP_FUZZ_INPUT_MAX_BYTES = 4096 };

/* The target. 0. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

/* The bytes of an input that were not taken yet. Behind the end come zeros. */
struct np_fuzz {
    const uint8_t *at, *end;
};

static inline struct np_fuzz np_fuzz_of(const uint8_t *input, size_t bytes)
{
    return (struct np_fuzz){input, input + bytes};
}

static inline size_t np_fuzz_left(const struct np_fuzz *fuzz)
{
    return (size_t)(fuzz->end - fuzz->at);
}

static inline uint8_t np_fuzz_byte(struct np_fuzz *fuzz)
{
    return fuzz->at < fuzz->end ? *fuzz->at++ : 0;
}

static inline uint64_t np_fuzz_number(struct np_fuzz *fuzz, int bytes)
{
    uint64_t number = 0;
    for (int i = 0; i < bytes; i++)
        number = number << 8 | np_fuzz_byte(fuzz);
    return number;
}

/* 0 .. bound - 1, of as few bytes as that needs. */
static inline uint32_t np_fuzz_below(struct np_fuzz *fuzz, uint32_t bound)
{
    int bytes = bound <= 1u << 8 ? 1 : bound <= 1u << 16 ? 2 : 4;
    return (uint32_t)np_fuzz_number(fuzz, bytes) % bound;
}

/* At most `max` bytes as they stand there. */
static inline const uint8_t *np_fuzz_bytes(struct np_fuzz *fuzz, size_t max, size_t *bytes)
{
    const uint8_t *at = fuzz->at;
    *bytes = max < np_fuzz_left(fuzz) ? max : np_fuzz_left(fuzz);
    fuzz->at += *bytes;
    return at;
}

/* A copy with no byte to spare on the heap, where the sanitizers see one too much. */
static inline uint8_t *np_fuzz_copy(const void *from, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    NP_ASSERT(copy != NULL);
    if (bytes)
        memcpy(copy, from, bytes);
    return copy;
}

static inline int np_fuzz_is_same(const void *one, const void *other, size_t bytes)
{
    return bytes == 0 || memcmp(one, other, bytes) == 0;
}

#endif
