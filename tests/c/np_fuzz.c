/* np_fuzz.c - see np_fuzz.h: the driver for where libFuzzer is not. */
#include "np_fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef NP_LIBFUZZER

enum {
    SEEDS_MAX_COUNT = 512,
    WORDS_MAX_COUNT = 128,
    WORD_MAX_BYTES = 64,
    CHANGES_MAX_COUNT = 6,
    DEFAULT_RUNS = 4000,
    PATH_BYTES = 512,
};

struct seed {
    uint8_t *bytes;
    size_t count;
};

struct driver {
    struct seed seeds[SEEDS_MAX_COUNT];
    struct seed words[WORDS_MAX_COUNT];
    uint32_t seeds_count, words_count;
    struct np_random random;
    const char *name;
    uint8_t input[NP_FUZZ_INPUT_MAX_BYTES];
    size_t bytes;
};

static struct driver driver;

/* ---- corpus and dictionary ------------------------------------------------------------------ */

static struct seed read_file(const char *path)
{
    struct seed seed = {malloc(NP_FUZZ_INPUT_MAX_BYTES), 0};
    FILE *file = fopen(path, "rb");
    NP_ASSERT(seed.bytes && file);
    seed.count = fread(seed.bytes, 1, NP_FUZZ_INPUT_MAX_BYTES, file);
    fclose(file);
    return seed;
}

static int by_name(const struct dirent **one, const struct dirent **other)
{
    return strcmp((*one)->d_name, (*other)->d_name);
}

static void read_corpus(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && driver.seeds_count < SEEDS_MAX_COUNT)
            driver.seeds[driver.seeds_count++] = read_file(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* A word of libFuzzer's dictionaries: "text", with \xNN, \" and \\ in it. */
static void read_word(const char *at)
{
    struct seed word = {malloc(WORD_MAX_BYTES), 0};
    NP_ASSERT(word.bytes != NULL);
    for (; *at && *at != '"' && word.count < WORD_MAX_BYTES; at++) {
        unsigned byte = (uint8_t)*at;
        if (*at == '\\' && at[1] == 'x' && sscanf(at + 2, "%2x", &byte) == 1)
            at += 3;
        else if (*at == '\\')
            byte = (uint8_t)*++at;
        word.bytes[word.count++] = (uint8_t)byte;
    }
    driver.words[driver.words_count++] = word;
}

static void read_dictionary(const char *path)
{
    char line[4 * WORD_MAX_BYTES + 8];
    FILE *file = fopen(path, "r");
    NP_ASSERT(file != NULL);
    while (fgets(line, sizeof(line), file) && driver.words_count < WORDS_MAX_COUNT)
        if (line[0] == '"')
            read_word(line + 1);
    fclose(file);
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* Puts `count` bytes in the place of `old` bytes at `at`, if there is room. */
static void splice(size_t at, size_t old, const void *put, size_t count)
{
    if (driver.bytes - old + count > NP_FUZZ_INPUT_MAX_BYTES)
        return;
    memmove(driver.input + at + count, driver.input + at + old, driver.bytes - at - old);
    memcpy(driver.input + at, put, count);
    driver.bytes += count - old;
}

static void change(void)
{
    struct np_random *random = &driver.random;
    size_t at = np_random_below(random, (uint32_t)driver.bytes + 1);
    size_t old = np_random_below(random, 8), behind = driver.bytes - at;
    uint8_t again[64], byte = (uint8_t)np_random_next(random);
    old = old < behind ? old : behind;
    switch (np_random_below(random, driver.words_count ? 6 : 5)) {
    case 0:
        splice(at, old ? 1 : 0, &byte, 1);
        return;
    case 1:
        splice(at, old, &byte, 0);
        return;
    case 2: /* a bit */
        if (behind)
            driver.input[at] ^= (uint8_t)(1u << (byte & 7));
        return;
    case 3: { /* some of it twice */
        size_t count = behind < sizeof(again) ? behind : sizeof(again);
        memcpy(again, driver.input + at, count);
        splice(at, 0, again, count);
        return;
    }
    case 4: { /* the end of another one */
        const struct seed *seed = &driver.seeds[np_random_below(random, driver.seeds_count)];
        size_t from = np_random_below(random, (uint32_t)seed->count + 1);
        splice(at, np_random_below(random, 2) ? behind : 0, seed->bytes + from, seed->count - from);
        return;
    }
    default: {
        const struct seed *word = &driver.words[np_random_below(random, driver.words_count)];
        splice(at, old / 4, word->bytes, word->count);
    }
    }
}

static void run_once(void)
{
    uint8_t *exact = np_fuzz_copy(driver.input, driver.bytes);
    LLVMFuzzerTestOneInput(exact, driver.bytes);
    free(exact);
}

static void run_seed(const struct seed *seed)
{
    driver.bytes = seed->count;
    memcpy(driver.input, seed->bytes, seed->count);
    run_once();
}

static void run_changed(uint64_t number)
{
    driver.random = np_random_seeded(number);
    const struct seed *seed = &driver.seeds[np_random_below(&driver.random, driver.seeds_count)];
    driver.bytes = seed->count;
    memcpy(driver.input, seed->bytes, seed->count);
    for (uint32_t n = 1 + np_random_below(&driver.random, CHANGES_MAX_COUNT); n > 0; n--)
        change();
    run_once();
}

/* The target has ended in abort(): the input is kept. */
static void keep_input(int signal_number)
{
    char path[PATH_BYTES];
    int length = snprintf(path, sizeof(path), "crash-%s", driver.name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd >= 0 && write(fd, driver.input, driver.bytes) == (ssize_t)driver.bytes &&
        write(2, path, (size_t)length) == length)
        (void)!write(2, " has the input\n", 15);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("NP_FUZZ_S"), *runs = getenv("NP_FUZZ_RUNS");
    time_t until_s = time(NULL) + (seconds ? atoi(seconds) : 0);
    uint64_t number = 0, wanted = runs ? strtoull(runs, NULL, 10) : DEFAULT_RUNS;
    struct stat what;
    driver.name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    if (argc < 2 || stat(argv[1], &what) < 0) {
        fprintf(stderr, "usage: %s CORPUS [DICTIONARY], or %s FILE\n", argv[0], argv[0]);
        return 2;
    }
    signal(SIGABRT, keep_input);
    if (!S_ISDIR(what.st_mode)) {
        driver.seeds[driver.seeds_count++] = read_file(argv[1]);
        run_seed(&driver.seeds[0]);
        return 0;
    }
    read_corpus(argv[1]);
    NP_ASSERT(driver.seeds_count > 0);
    if (argc > 2)
        read_dictionary(argv[2]);
    for (uint32_t i = 0; i < driver.seeds_count; i++)
        run_seed(&driver.seeds[i]);
    for (; number < wanted || time(NULL) < until_s; number++)
        run_changed(number);
    printf("%s: %u inputs of the corpus, %llu others\n", driver.name, driver.seeds_count,
           (unsigned long long)number);
    return 0;
}

#endif
