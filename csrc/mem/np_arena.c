/* np_arena.c - the ladder of page sizes.
 *
 * A reserved huge page can still be refused when it is first touched (a control group with a
 * hugetlb limit), and then the touch is SIGBUS. So that rung populates its pages at once: a
 * refusal is an error code there, and the next rung takes over.
 */
#include "mem/np_arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/np_assert.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#if defined(__SANITIZE_ADDRESS__)
#define NP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NP_ASAN 1
#endif
#endif

#ifdef NP_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* Rounds up to a power of two's multiple; 0 when that does not fit a size_t. */
static size_t round_up(size_t size_bytes, size_t unit_bytes)
{
    if (size_bytes > SIZE_MAX - (unit_bytes - 1))
        return 0;
    return (size_bytes + unit_bytes - 1) & ~(unit_bytes - 1);
}

static void *map(size_t size_bytes, int flags)
{
    void *base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags,
                      -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

static int open_hugetlb(struct np_arena *arena, size_t size_bytes)
{
    size_t whole_bytes = round_up(size_bytes, HUGE_PAGE_BYTES);
    if (size_bytes < HUGE_PAGE_BYTES / 2 || whole_bytes == 0)
        return -ENOMEM;
    void *base = map(whole_bytes, MAP_HUGETLB | MAP_HUGE_2MB);
    if (!base)
        return -ENOMEM;
    if (madvise(base, whole_bytes, MADV_POPULATE_WRITE) < 0) {
        munmap(base, whole_bytes);
        return -ENOMEM;
    }
    *arena = (struct np_arena){base, whole_bytes, NP_ARENA_HUGETLB};
    return 0;
}

/* madvise says yes even where the administrator said never; `kind` shall not claim it then. */
static int thp_is_off(void)
{
    char text[64];
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0; /* no /sys here: madvise's answer has to do */
    ssize_t len = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[len > 0 ? len : 0] = '\0';
    return strstr(text, "[never]") != NULL;
}

static int open_thp(struct np_arena *arena, size_t size_bytes)
{
    size_t whole_bytes = round_up(size_bytes, HUGE_PAGE_BYTES);
    if (size_bytes < HUGE_PAGE_BYTES || whole_bytes == 0 || thp_is_off())
        return -ENOMEM;
    size_t mapped_bytes = whole_bytes + HUGE_PAGE_BYTES; /* to cut an aligned piece out of */
    if (mapped_bytes < whole_bytes)
        return -ENOMEM;
    uint8_t *mapped = map(mapped_bytes, 0);
    if (!mapped)
        return -ENOMEM;

    size_t before_bytes = -(uintptr_t)mapped & (HUGE_PAGE_BYTES - 1);
    uint8_t *base = mapped + before_bytes;
    if (before_bytes > 0)
        munmap(mapped, before_bytes);
    if (before_bytes < HUGE_PAGE_BYTES)
        munmap(base + whole_bytes, HUGE_PAGE_BYTES - before_bytes);
    if (madvise(base, whole_bytes, MADV_HUGEPAGE) < 0) {
        munmap(base, whole_bytes);
        return -ENOMEM;
    }
    *arena = (struct np_arena){base, whole_bytes, NP_ARENA_THP};
    return 0;
}

static int open_plain(struct np_arena *arena, size_t size_bytes)
{
    size_t whole_bytes = round_up(size_bytes, (size_t)sysconf(_SC_PAGESIZE));
    if (whole_bytes == 0)
        return -ENOMEM;
    void *base = map(whole_bytes, 0);
    if (!base)
        return -ENOMEM;
    *arena = (struct np_arena){base, whole_bytes, NP_ARENA_PLAIN};
    return 0;
}

int np_arena_open(struct np_arena *arena, size_t size_bytes, int flags)
{
    *arena = (struct np_arena){0};
    if (size_bytes == 0)
        return -EINVAL;
    if (flags & NP_ARENA_HUGETLB_ONLY)
        return open_hugetlb(arena, size_bytes);
    if (!(flags & NP_ARENA_PLAIN_ONLY)) {
        if (open_hugetlb(arena, size_bytes) == 0 || open_thp(arena, size_bytes) == 0)
            return 0;
    }
    return open_plain(arena, size_bytes);
}

void np_arena_close(struct np_arena *arena)
{
    if (!arena->base)
        return;
    /* The shadow outlives the mapping: the next owner of these addresses must find it clean. */
    np_arena_unpoison(arena->base, arena->size_bytes);
    munmap(arena->base, arena->size_bytes);
    *arena = (struct np_arena){0};
}

void np_arena_poison(const void *base, size_t size_bytes)
{
#ifdef NP_ASAN
    ASAN_POISON_MEMORY_REGION(base, size_bytes);
#else
    (void)base;
    (void)size_bytes;
#endif
}

void np_arena_unpoison(const void *base, size_t size_bytes)
{
#ifdef NP_ASAN
    ASAN_UNPOISON_MEMORY_REGION(base, size_bytes);
#else
    (void)base;
    (void)size_bytes;
#endif
}

const char *np_arena_kind_name(int kind)
{
    switch (kind) {
    case NP_ARENA_HUGETLB:
        return "hugetlb";
    case NP_ARENA_THP:
        return "thp";
    case NP_ARENA_PLAIN:
        return "plain";
    default:
        return "unknown";
    }
}
