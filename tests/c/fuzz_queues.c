/* fuzz_queues.c - the queues of the scheduler beside arrays, and the order of its lanes.
 *
 * An input is a list of steps in one thread: what a queue hands out is what was put first. Threads
 * that get into each other's way are test_sched.c's. Of the lanes the promise of np_lane.h is
 * checked: how long each waits at most.
 */
#include "np_fuzz.h"

#include "sched/np_deque.h"
#include "sched/np_injector.h"
#include "sched/np_lane.h"

enum { TASKS_COUNT = 128, SLOTS_MAX_COUNT = 16 };

struct fifo {
    struct np_task *tasks[TASKS_COUNT];
    uint32_t count;
};

struct model {
    struct np_task tasks[TASKS_COUNT];
    uint8_t is_queued[TASKS_COUNT];
    struct np_deque deque;
    struct np_injector injector;
    struct fifo in_deque, in_lanes[NP_LANES];
    uint32_t slots_count;
    int is_closed;
};

static void append(struct model *model, struct fifo *fifo, struct np_task *task)
{
    fifo->tasks[fifo->count++] = task;
    model->is_queued[task - model->tasks] = 1;
}

static void take_first(struct model *model, struct fifo *fifo, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        model->is_queued[fifo->tasks[i] - model->tasks] = 0;
    fifo->count -= count;
    memmove(fifo->tasks, fifo->tasks + count, fifo->count * sizeof(fifo->tasks[0]));
}

static struct np_task *idle_task(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t first = np_fuzz_below(fuzz, TASKS_COUNT);
    for (uint32_t i = 0; i < TASKS_COUNT; i++)
        if (!model->is_queued[(first + i) % TASKS_COUNT])
            return &model->tasks[(first + i) % TASKS_COUNT];
    return NULL;
}

/* ---- the deque ------------------------------------------------------------------------------ */

static void push(struct model *model, struct np_fuzz *fuzz)
{
    struct np_task *task = idle_task(model, fuzz);
    int is_full = model->in_deque.count == model->slots_count;
    if (!task)
        return;
    NP_ASSERT(np_deque_push(&model->deque, task) == (is_full ? -ENOSPC : 0));
    if (!is_full)
        append(model, &model->in_deque, task);
}

static void pop(struct model *model)
{
    struct fifo *fifo = &model->in_deque;
    NP_ASSERT(np_deque_pop(&model->deque) == (fifo->count ? fifo->tasks[0] : NULL));
    take_first(model, fifo, fifo->count ? 1 : 0);
}

static void steal(struct model *model, uint32_t max)
{
    struct np_task *out[SLOTS_MAX_COUNT];
    struct fifo *fifo = &model->in_deque;
    uint32_t half = (fifo->count + 1) / 2, wanted = half < max ? half : max;
    NP_ASSERT(np_deque_steal(&model->deque, out, max) == wanted);
    NP_ASSERT(np_fuzz_is_same(out, fifo->tasks, wanted * sizeof(out[0])));
    take_first(model, fifo, wanted);
}

/* ---- the injector --------------------------------------------------------------------------- */

static void push_chain(struct model *model, struct np_fuzz *fuzz, int lane)
{
    uint32_t wanted = 1 + np_fuzz_below(fuzz, 6), count = 0;
    struct np_task *first = NULL, *last = NULL;
    for (; count < wanted; count++) {
        struct np_task *task = idle_task(model, fuzz);
        if (!task)
            break;
        append(model, &model->in_lanes[lane], task);
        if (last)
            last->next = task;
        else
            first = task;
        last = task;
    }
    if (!last)
        return;
    last->next = first; /* nonsense: the injector ends the chain itself */
    np_injector_push(&model->injector, lane, first, last, count);
}

static void offer(struct model *model, struct np_fuzz *fuzz, int lane)
{
    struct np_task *task = idle_task(model, fuzz);
    if (!task)
        return;
    int wanted = model->is_closed ? -ESHUTDOWN : 0;
    NP_ASSERT(np_injector_offer(&model->injector, lane, task) == wanted);
    if (wanted == 0)
        append(model, &model->in_lanes[lane], task);
}

static void take(struct model *model, int lane, uint32_t max)
{
    struct fifo *fifo = &model->in_lanes[lane];
    uint32_t wanted = fifo->count < max ? fifo->count : max;
    struct np_task *task = np_injector_take(&model->injector, lane, max);
    for (uint32_t i = 0; i < wanted; i++, task = task->next)
        NP_ASSERT(task == fifo->tasks[i]);
    NP_ASSERT(task == NULL);
    take_first(model, fifo, wanted);
}

static void check(const struct model *model)
{
    NP_ASSERT(np_deque_count(&model->deque) == model->in_deque.count);
    for (int lane = 0; lane < NP_LANES; lane++) {
        uint32_t count = model->in_lanes[lane].count;
        NP_ASSERT(np_injector_count(&model->injector, lane) == count);
        NP_ASSERT(((np_injector_mask(&model->injector) >> lane) & 1) == (count > 0));
    }
}

/* ---- lanes ---------------------------------------------------------------------------------- */

/* Lanes that come and go as the input says; one that stays is served within its bound. */
static void check_lanes(struct np_fuzz fuzz)
{
    static const uint32_t BOUNDS[NP_LANES] = {4, 11, 34, 65};
    struct np_lane_ages ages = {{0}};
    uint32_t waited[NP_LANES] = {0};
    while (np_fuzz_left(&fuzz)) {
        uint32_t byte = np_fuzz_byte(&fuzz), mask = byte & 15, times = 1 + (byte >> 4) * 5;
        for (; mask && times > 0; times--) {
            int picked = np_lane_pick(&ages, mask);
            NP_ASSERT(picked >= 0 && picked < NP_LANES && (mask >> picked & 1));
            for (int lane = 0; lane < NP_LANES; lane++) {
                waited[lane] = picked == lane || !(mask >> lane & 1) ? 0 : waited[lane] + 1;
                NP_ASSERT(waited[lane] < BOUNDS[lane]);
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 2000 ? bytes : 2000);
    memset(&model, 0, sizeof(model));
    for (int i = 0; i < TASKS_COUNT; i++)
        np_task_init(&model.tasks[i], 0, NP_LANE_NORMAL);
    check_lanes(fuzz);
    uint32_t how = np_fuzz_byte(&fuzz);
    model.slots_count = 2u << (how & 3);
    NP_ASSERT(np_deque_open(&model.deque, model.slots_count) == 0);
    if (how & 4) { /* after 2^32 tasks */
        atomic_store(&model.deque.head, UINT32_MAX - 3);
        atomic_store(&model.deque.tail, UINT32_MAX - 3);
    }
    np_injector_init(&model.injector);
    while (np_fuzz_left(&fuzz)) {
        uint32_t what = np_fuzz_byte(&fuzz);
        int lane = (int)(what >> 6);
        switch (what % 8) {
        case 0:
        case 1:
            push(&model, &fuzz);
            break;
        case 2:
            pop(&model);
            break;
        case 3:
            steal(&model, np_fuzz_below(&fuzz, SLOTS_MAX_COUNT + 1));
            break;
        case 4:
            push_chain(&model, &fuzz, lane);
            break;
        case 5:
            offer(&model, &fuzz, lane);
            break;
        case 6:
            take(&model, lane, np_fuzz_below(&fuzz, 9));
            break;
        default:
            if (np_fuzz_byte(&fuzz) == 200) {
                np_injector_refuse(&model.injector);
                model.is_closed = 1;
            }
        }
        check(&model);
    }
    np_deque_close(&model.deque);
    return 0;
}
