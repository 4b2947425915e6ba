/* fuzz_timer.c - the timer heap beside a search through all timers.
 *
 * An input is a list of steps. The next timer is the earliest one, and of several the one that was
 * armed first, which is what the model looks for from one end to the other.
 */
#include "np_fuzz.h"

#include "io/np_timer.h"

enum { TIMERS_COUNT = 2600, BURST_COUNT = 1300 };

struct model {
    struct np_timer_heap heap;
    struct np_timer timers[TIMERS_COUNT];
    uint64_t armed_as[TIMERS_COUNT]; /* how many were armed before, + 1; 0: not armed */
    uint64_t armings;
    uint32_t count;
};

static struct np_timer *earliest(struct model *model)
{
    struct np_timer *best = NULL;
    for (int i = 0; i < TIMERS_COUNT; i++) {
        struct np_timer *timer = &model->timers[i];
        if (!model->armed_as[i])
            continue;
        if (!best || timer->when_ns < best->when_ns ||
            (timer->when_ns == best->when_ns &&
             model->armed_as[i] < model->armed_as[best - model->timers]))
            best = timer;
    }
    return best;
}

static int64_t some_time(struct np_fuzz *fuzz)
{
    switch (np_fuzz_below(fuzz, 4)) {
    case 0:
        return (int64_t)np_fuzz_number(fuzz, 8);
    case 1:
        return np_fuzz_below(fuzz, 2) ? INT64_MAX : INT64_MIN;
    default:
        return np_fuzz_byte(fuzz) - 20;
    }
}

static void add(struct model *model, uint32_t i, int64_t when_ns, int without_memory)
{
    if (model->armed_as[i])
        return;
    model->timers[i].when_ns = when_ns;
    np_fail_allocations(without_memory);
    int result = np_timer_add(&model->heap, &model->timers[i]);
    np_fail_allocations(0);
    NP_ASSERT(result == 0 || (result == -ENOMEM && without_memory));
    if (result < 0) {
        NP_ASSERT(model->timers[i].pos == 0);
        return;
    }
    model->armed_as[i] = ++model->armings;
    model->count++;
}

static void removed(struct model *model, const struct np_timer *timer)
{
    NP_ASSERT(timer->pos == 0);
    model->armed_as[timer - model->timers] = 0;
    model->count--;
}

static void remove_one(struct model *model, uint32_t i, int without_memory)
{
    np_fail_allocations(without_memory); /* giving memory back may be refused */
    np_timer_remove(&model->heap, &model->timers[i]);
    np_fail_allocations(0);
    if (model->armed_as[i])
        removed(model, &model->timers[i]);
}

static void pop_due(struct model *model, int64_t now_ns)
{
    struct np_timer *wanted = earliest(model);
    if (wanted && wanted->when_ns > now_ns)
        wanted = NULL;
    NP_ASSERT(np_timer_pop_due(&model->heap, now_ns) == wanted);
    if (wanted)
        removed(model, wanted);
}

/* Many at once, which makes the heap take memory, and give it back when they go. */
static void burst(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t first = np_fuzz_below(fuzz, TIMERS_COUNT), step = np_fuzz_byte(fuzz);
    int adds = np_fuzz_below(fuzz, 2);
    for (uint32_t i = 0; i < BURST_COUNT; i++) {
        uint32_t at = (first + i) % TIMERS_COUNT;
        if (adds)
            add(model, at, (int64_t)(i * step % 251), 0);
        else
            remove_one(model, at, 0);
    }
}

static void check(struct model *model)
{
    const struct np_timer_heap *heap = &model->heap;
    NP_ASSERT(heap->count == model->count);
    NP_ASSERT(heap->cap >= heap->count);
    for (uint32_t i = 0; i < heap->count; i++) {
        const struct np_timer *timer = heap->slots[i].timer;
        NP_ASSERT(timer->pos == i + 1 && timer->when_ns == heap->slots[i].when_ns);
    }
    NP_ASSERT(np_timer_peek(heap) == earliest(model));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 600 ? bytes : 600);
    memset(&model, 0, sizeof(model));
    np_timer_heap_init(&model.heap);
    uint32_t few = np_fuzz_byte(&fuzz) & 1 ? 24 : TIMERS_COUNT;
    while (np_fuzz_left(&fuzz)) {
        uint32_t what = np_fuzz_below(&fuzz, 16);
        if (what < 6)
            add(&model, np_fuzz_below(&fuzz, few), some_time(&fuzz), what == 5);
        else if (what < 10)
            remove_one(&model, np_fuzz_below(&fuzz, few), what == 9);
        else if (what == 15 && few == TIMERS_COUNT)
            burst(&model, &fuzz);
        else
            pop_due(&model, some_time(&fuzz));
        check(&model);
    }
    while (model.count && few < TIMERS_COUNT)
        pop_due(&model, INT64_MAX);
    np_timer_heap_close(&model.heap);
    for (int i = 0; i < TIMERS_COUNT; i++)
        NP_ASSERT(model.timers[i].pos == 0);
    return 0;
}
