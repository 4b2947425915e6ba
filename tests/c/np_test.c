/* np_test.c - see np_test.h. Linked with --wrap for the allocators (see the Makefile). */
#include "np_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures_left;
static int skipped_count;

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void np_fail_allocations(int count)
{
    failures_left = count;
}

static int fails_now(void)
{
    if (failures_left == 0)
        return 0;
    failures_left--;
    return 1;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails_now() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails_now() ? NULL : __real_aligned_alloc(alignment, size);
}

struct np_guarded np_guarded_open(size_t size_bytes)
{
    struct np_guarded guarded = {.size_bytes = size_bytes};
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable_bytes = (size_bytes + page_bytes - 1) / page_bytes * page_bytes;
    guarded.mapping_bytes = usable_bytes + page_bytes;
    uint8_t *mapping = mmap(NULL, guarded.mapping_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(mapping != MAP_FAILED);
    assert_int_equal(mprotect(mapping + usable_bytes, page_bytes, PROT_NONE), 0);
    guarded.mapping = mapping;
    guarded.base = mapping + usable_bytes - size_bytes;
    return guarded;
}

void np_guarded_close(struct np_guarded *guarded)
{
    munmap(guarded->mapping, guarded->mapping_bytes);
}

int np_aborts(void (*body)(void *), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr)) /* its message would look like a failure here */
            _exit(1);
        body(arg);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

int np_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* ".", ".." and the directory's own */
}

void np_skip(const char *what, const char *reason)
{
    skipped_count++;
    print_message("%s: skipped: %s\n", what, reason);
    skip();
}

int np_test_main(const char *name, const struct CMUnitTest *tests, size_t count)
{
    if (getenv("NP_TEST_FILTER"))
        cmocka_set_test_filter(getenv("NP_TEST_FILTER"));
    int failed = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    if (failed == 0)
        printf("%s: %zu tests passed, %d skipped\n", name, count - (size_t)skipped_count,
               skipped_count);
    else
        printf("%s: %d of %zu tests FAILED\n", name, failed, count);
    return failed == 0 ? 0 : 1;
}
