/* test_arena.c - the ladder of page sizes. What the kernel grants is scripted: mmap and madvise
 * are wrapped, so that every rung is reached on every machine. */
#include "np_test.h"

#include <sys/mman.h>
#include <unistd.h>

#include "mem/np_arena.h"

#define MIB ((size_t)1 << 20)

void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __real_madvise(void *base, size_t size, int advice);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __wrap_madvise(void *base, size_t size, int advice);

static struct {
    int grants_hugetlb, grants_populate, grants_thp, grants_plain;
    int hugetlb_asked, thp_asked, populated;
} kernel;

static void kernel_grants(int hugetlb, int populate, int thp, int plain)
{
    memset(&kernel, 0, sizeof(kernel));
    kernel.grants_hugetlb = hugetlb;
    kernel.grants_populate = populate;
    kernel.grants_thp = thp;
    kernel.grants_plain = plain;
}

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    if (flags & MAP_HUGETLB) {
        kernel.hugetlb_asked++;
        assert_int_equal(size % (2 * MIB), 0);
        if (!kernel.grants_hugetlb) {
            errno = ENOMEM;
            return MAP_FAILED;
        }
        /* Stands for pages that this machine lacks. */
        return __real_mmap(at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, fd, offset);
    }
    if (!kernel.grants_plain) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    /* One page off every alignment that the caller may hope for. */
    uint8_t *base = __real_mmap(at, size + 4096, prot, flags, fd, offset);
    if (base == MAP_FAILED)
        return MAP_FAILED;
    int misaligns = (uintptr_t)base % (2 * MIB) == 0;
    munmap(misaligns ? base : base + size, 4096);
    return misaligns ? base + 4096 : base;
}

int __wrap_madvise(void *base, size_t size, int advice)
{
    if (advice == MADV_HUGEPAGE) {
        kernel.thp_asked++;
        assert_int_equal((uintptr_t)base % (2 * MIB), 0);
        assert_int_equal(size % (2 * MIB), 0);
        if (kernel.grants_thp)
            return 0;
        errno = EINVAL;
        return -1;
    }
    kernel.populated++;
    if (kernel.grants_populate)
        return __real_madvise(base, size, advice);
    errno = EFAULT;
    return -1;
}

/* Pages mapped in this process now. */
static size_t mapped_pages(void)
{
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu", &pages), 1);
    fclose(file);
    return pages;
}

static void use_and_close(struct np_arena *arena, size_t asked_bytes, int kind)
{
    assert_int_equal(arena->kind, kind);
    assert_non_null(arena->base);
    assert_true(arena->size_bytes >= asked_bytes);
    for (size_t i = 0; i < arena->size_bytes; i += 4096)
        assert_int_equal(arena->base[i], 0);
    memset(arena->base, 0x5A, arena->size_bytes);
    np_arena_close(arena);
    assert_null(arena->base);
    np_arena_close(arena); /* closing twice does no harm */
}

static int thp_is_possible(void)
{
    char text[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file && !fgets(text, sizeof(text), file))
        text[0] = '\0';
    if (file)
        fclose(file);
    return !strstr(text, "[never]");
}

static void the_ladder(void **state)
{
    (void)state;
    int thp_kind = thp_is_possible() ? NP_ARENA_THP : NP_ARENA_PLAIN;
    struct np_arena arena;
    kernel_grants(1, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, 3 * MIB, NP_ARENA_LADDER), 0);
    assert_int_equal(arena.size_bytes, 4 * MIB);
    assert_int_equal(kernel.populated, 1);
    use_and_close(&arena, 3 * MIB, NP_ARENA_HUGETLB);

    kernel_grants(0, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, 3 * MIB, NP_ARENA_LADDER), 0);
    assert_int_equal(kernel.hugetlb_asked, 1);
    use_and_close(&arena, 3 * MIB, thp_kind);

    kernel_grants(1, 0, 1, 1); /* reserved, but refused at the touch: a control group's limit */
    assert_int_equal(np_arena_open(&arena, 3 * MIB, NP_ARENA_LADDER), 0);
    assert_int_equal(kernel.populated, 1);
    use_and_close(&arena, 3 * MIB, thp_kind);

    kernel_grants(0, 1, 0, 1);
    assert_int_equal(np_arena_open(&arena, 3 * MIB + 1, NP_ARENA_LADDER), 0);
    assert_int_equal(arena.size_bytes, 3 * MIB + (size_t)sysconf(_SC_PAGESIZE));
    use_and_close(&arena, 3 * MIB + 1, NP_ARENA_PLAIN);

    kernel_grants(0, 1, 1, 0);
    assert_int_equal(np_arena_open(&arena, 3 * MIB, NP_ARENA_LADDER), -ENOMEM);
    assert_null(arena.base);
    np_arena_close(&arena);
}

static void small_arenas_do_not_waste_huge_pages(void **state)
{
    (void)state;
    struct np_arena arena;
    kernel_grants(1, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, MIB - 1, NP_ARENA_LADDER), 0);
    assert_int_equal(kernel.hugetlb_asked, 0);
    assert_int_equal(kernel.thp_asked, 0);
    use_and_close(&arena, MIB - 1, NP_ARENA_PLAIN);

    assert_int_equal(np_arena_open(&arena, MIB, NP_ARENA_LADDER), 0);
    assert_int_equal(arena.size_bytes, 2 * MIB);
    use_and_close(&arena, MIB, NP_ARENA_HUGETLB);

    kernel_grants(0, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, 2 * MIB - 1, NP_ARENA_LADDER), 0);
    assert_int_equal(kernel.thp_asked, 0);
    use_and_close(&arena, 2 * MIB - 1, NP_ARENA_PLAIN);
}

static void plain_only_skips_the_ladder(void **state)
{
    (void)state;
    struct np_arena arena;
    kernel_grants(1, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, 4 * MIB, NP_ARENA_PLAIN_ONLY), 0);
    assert_int_equal(kernel.hugetlb_asked, 0);
    assert_int_equal(kernel.thp_asked, 0);
    use_and_close(&arena, 4 * MIB, NP_ARENA_PLAIN);
    assert_int_equal(np_arena_open(&arena, 1, NP_ARENA_PLAIN_ONLY), 0);
    assert_int_equal(arena.size_bytes, sysconf(_SC_PAGESIZE));
    use_and_close(&arena, 1, NP_ARENA_PLAIN);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct np_arena arena;
    kernel_grants(1, 1, 1, 1);
    assert_int_equal(np_arena_open(&arena, 0, NP_ARENA_LADDER), -EINVAL);
    assert_null(arena.base);
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4095, SIZE_MAX - 2 * MIB, SIZE_MAX / 2};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(np_arena_open(&arena, sizes[i], NP_ARENA_LADDER), -ENOMEM);
        assert_null(arena.base);
    }
}

static void nothing_stays_mapped(void **state)
{
    (void)state;
    struct np_arena arena;
    size_t before = 0;
    for (int round = 0; round < 40; round++) {
        if (round == 4) /* after the allocator's own first needs */
            before = mapped_pages();
        kernel_grants(round & 1, round & 2, round & 2, 1);
        assert_int_equal(np_arena_open(&arena, 5 * MIB, NP_ARENA_LADDER), 0);
        np_arena_close(&arena);
    }
    assert_true(mapped_pages() <= before + MIB / 4096);
}

static void read_a_byte(void *arg)
{
    volatile const uint8_t *byte = arg;
    (void)*byte;
}

static void poisoned_memory_cannot_be_read(void **state)
{
    (void)state;
#ifndef __SANITIZE_ADDRESS__
    np_skip("poisoned_memory_cannot_be_read", "nothing is poisoned without AddressSanitizer");
#endif
    struct np_arena arena;
    kernel_grants(0, 0, 0, 1);
    assert_int_equal(np_arena_open(&arena, 8192, NP_ARENA_LADDER), 0);
    np_arena_poison(arena.base + 4096, 256);
    assert_false(np_aborts(read_a_byte, arena.base + 4095));
    assert_true(np_aborts(read_a_byte, arena.base + 4096));
    assert_true(np_aborts(read_a_byte, arena.base + 4096 + 255));
    assert_false(np_aborts(read_a_byte, arena.base + 4096 + 256));
    np_arena_unpoison(arena.base + 4096, 128);
    assert_false(np_aborts(read_a_byte, arena.base + 4096));
    assert_true(np_aborts(read_a_byte, arena.base + 4096 + 128));
    uint8_t *poisoned = arena.base + 4096 + 128;
    np_arena_close(&arena);
    /* The addresses are the next owner's now, without the old poison. */
    uint8_t *again = __real_mmap(poisoned - 4096 - 128, 8192, PROT_READ,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_ptr_equal(again, poisoned - 4096 - 128);
    assert_int_equal(*poisoned, 0);
    munmap(again, 8192);
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(np_arena_kind_name(NP_ARENA_HUGETLB), "hugetlb");
    assert_string_equal(np_arena_kind_name(NP_ARENA_THP), "thp");
    assert_string_equal(np_arena_kind_name(NP_ARENA_PLAIN), "plain");
    assert_string_equal(np_arena_kind_name(0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ladder),
        cmocka_unit_test(small_arenas_do_not_waste_huge_pages),
        cmocka_unit_test(plain_only_skips_the_ladder),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(nothing_stays_mapped),
        cmocka_unit_test(poisoned_memory_cannot_be_read),
        cmocka_unit_test(kinds_have_names),
    };
    return NP_TEST_MAIN("test_arena", tests);
}
