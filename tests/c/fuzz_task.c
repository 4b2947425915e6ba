/* fuzz_task.c - the states of tasks, and their records, beside what is promised of them.
 *
 * An input is a list of steps: tasks are woken, given another lane's ticket, taken from the queue
 * in any order, run, revoked; records are taken and put back through two caches. Promised is: a
 * task runs after each waking, in one place at a time, and not after its end; its record is in the
 * queue once at the most.
 */
#include "np_fuzz.h"

#include "base/np_limits.h"
#include "sched/np_task.h"

enum { TASKS_COUNT = 4, ENTRIES_MAX_COUNT = 256, RECORDS_MAX_COUNT = 300, CACHES = 2 };

struct life {
    struct np_task task;
    int wants_run; /* woken, and not begun to run since */
    int is_running, is_done, has_begun;
};

/* In a queue: the task's own record, or a ticket that names it. */
struct entry {
    int which, is_node;
};

struct model {
    struct life lives[TASKS_COUNT];
    struct entry entries[ENTRIES_MAX_COUNT];
    uint32_t entries_count;
    struct np_task_slab slab;
    struct np_task_cache caches[CACHES];
    struct np_task *records[RECORDS_MAX_COUNT];
    uint32_t generations[RECORDS_MAX_COUNT], records_count, most_records_count;
};

/* ---- states --------------------------------------------------------------------------------- */

static int nodes_of(const struct model *model, int which)
{
    int count = 0;
    for (uint32_t i = 0; i < model->entries_count; i++)
        count += model->entries[i].which == which && model->entries[i].is_node;
    return count;
}

static void follow(struct model *model, int which, int verdict)
{
    if (verdict == NP_TASK_LEAVE || model->entries_count == ENTRIES_MAX_COUNT)
        return;
    NP_ASSERT(nodes_of(model, which) == (verdict == NP_TASK_PUSH_TICKET));
    model->entries[model->entries_count++] = (struct entry){which, verdict == NP_TASK_PUSH};
}

static void wake(struct model *model, int which)
{
    struct life *life = &model->lives[which];
    int verdict = np_task_wake(&life->task);
    if (life->is_done || life->is_running || life->wants_run)
        NP_ASSERT(verdict == NP_TASK_LEAVE);
    else
        NP_ASSERT(verdict != NP_TASK_LEAVE);
    life->wants_run |= !life->is_done;
    follow(model, which, verdict);
}

/* It moves to another lane: a second entry is queued while the first one stays. */
static void move(struct model *model, int which, uint8_t lane)
{
    struct life *life = &model->lives[which];
    np_task_set_lane(&life->task, lane);
    NP_ASSERT(np_task_lane(&life->task) == lane);
    if (np_task_is_queued(&life->task) && model->entries_count < ENTRIES_MAX_COUNT)
        model->entries[model->entries_count++] = (struct entry){which, 0};
}

static void take_entry(struct model *model, uint32_t i)
{
    struct entry entry = model->entries[i];
    struct life *life = &model->lives[entry.which];
    model->entries[i] = model->entries[--model->entries_count];
    int is_due = life->wants_run && !life->is_running && !life->is_done;
    NP_ASSERT(np_task_claim(&life->task, entry.is_node) == is_due);
    if (!is_due)
        return;
    life->wants_run = 0;
    life->is_running = life->has_begun = 1;
}

static void pause_run(struct model *model, int which)
{
    struct life *life = &model->lives[which];
    if (!life->is_running)
        return;
    int verdict = np_task_pause(&life->task);
    life->is_running = 0;
    NP_ASSERT((verdict != NP_TASK_LEAVE) == life->wants_run);
    follow(model, which, verdict);
}

static void finish(struct model *model, int which)
{
    struct life *life = &model->lives[which];
    if (!life->is_running)
        return;
    np_task_finish(&life->task);
    life->is_running = life->wants_run = 0;
    life->is_done = 1;
}

static void revoke(struct model *model, int which)
{
    struct life *life = &model->lives[which];
    int may = !life->has_begun && !life->is_done;
    NP_ASSERT(np_task_revoke(&life->task) == may);
    if (may) {
        life->is_done = 1;
        life->wants_run = 0;
    }
}

/* Another task in the place of one that is over, once no queue has it. */
static void begin_anew(struct model *model, int which)
{
    struct life *life = &model->lives[which];
    for (uint32_t i = 0; i < model->entries_count; i++)
        if (model->entries[i].which == which)
            return;
    if (!life->is_done)
        return;
    *life = (struct life){.wants_run = 0};
    np_task_init(&life->task, 0, NP_LANE_NORMAL);
}

static void check_states(struct model *model)
{
    for (int i = 0; i < TASKS_COUNT; i++) {
        struct life *life = &model->lives[i];
        uint32_t state = atomic_load(&life->task.state);
        NP_ASSERT(!(state & NP_TASK_NODE) == !nodes_of(model, i));
        NP_ASSERT(!(state & NP_TASK_RUNNING) == !life->is_running);
        NP_ASSERT(!(state & NP_TASK_DONE) == !life->is_done);
        NP_ASSERT(np_task_is_queued(&life->task) == (life->wants_run && !life->is_running));
    }
}

/* Whatever was woken is run when the queues are emptied. */
static void run_all(struct model *model)
{
    for (int i = 0; i < TASKS_COUNT; i++)
        pause_run(model, i);
    while (model->entries_count) {
        int which = model->entries[0].which;
        take_entry(model, 0);
        finish(model, which);
        check_states(model);
    }
    for (int i = 0; i < TASKS_COUNT; i++)
        NP_ASSERT(!model->lives[i].wants_run);
}

/* ---- records -------------------------------------------------------------------------------- */

static void get(struct model *model, uint32_t count, uint32_t cache, int without_memory)
{
    for (; count && model->records_count < RECORDS_MAX_COUNT; count--) {
        np_fail_allocations(without_memory);
        struct np_task *task = np_task_get(&model->slab, &model->caches[cache]);
        np_fail_allocations(0);
        if (!task) {
            NP_ASSERT(without_memory);
            return;
        }
        NP_ASSERT(task->is_slab && (task->generation & 1) && !task->next);
        for (uint32_t i = 0; i < model->records_count; i++)
            NP_ASSERT(model->records[i] != task);
        model->generations[model->records_count] = task->generation;
        model->records[model->records_count++] = task;
        task->run = task; /* the layer above writes what it likes */
        task->argument = task;
    }
    if (model->records_count > model->most_records_count)
        model->most_records_count = model->records_count;
}

static void put(struct model *model, uint32_t count, uint32_t at, uint32_t cache)
{
    for (; count && model->records_count; count--) {
        uint32_t i = at % model->records_count;
        NP_ASSERT(model->records[i]->generation == model->generations[i]);
        np_task_put(&model->slab, &model->caches[cache], model->records[i]);
        model->records_count--;
        model->records[i] = model->records[model->records_count];
        model->generations[i] = model->generations[model->records_count];
    }
}

static void flush(struct model *model)
{
    for (int i = 0; i < CACHES; i++)
        np_task_cache_flush(&model->slab, &model->caches[i]);
    NP_ASSERT(np_task_slab_live_count(&model->slab) == model->records_count);
}

static void step(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t what = np_fuzz_byte(fuzz);
    int which = (int)(what >> 6);
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        wake(model, which);
        break;
    case 3:
        move(model, which, (uint8_t)np_fuzz_below(fuzz, NP_LANES));
        break;
    case 4:
    case 5:
    case 6:
        if (model->entries_count)
            take_entry(model, np_fuzz_below(fuzz, model->entries_count));
        break;
    case 7:
    case 8:
        pause_run(model, which);
        break;
    case 9:
        finish(model, which);
        break;
    case 10:
        revoke(model, which);
        break;
    case 11:
        begin_anew(model, which);
        break;
    case 12:
    case 13:
        get(model, 1 + np_fuzz_byte(fuzz), (what >> 6) & 1, what >> 7);
        break;
    case 14:
        put(model, 1 + np_fuzz_byte(fuzz), np_fuzz_byte(fuzz), (what >> 6) & 1);
        break;
    default:
        flush(model);
    }
    check_states(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 1000 ? bytes : 1000);
    memset(&model, 0, sizeof(model));
    np_task_slab_init(&model.slab);
    for (int i = 0; i < TASKS_COUNT; i++)
        np_task_init(&model.lives[i].task, 0, NP_LANE_NORMAL);
    while (np_fuzz_left(&fuzz))
        step(&model, &fuzz);
    run_all(&model);
    put(&model, model.records_count, 0, 0);
    flush(&model);
    np_task_slab_close(&model.slab);
    return 0;
}
