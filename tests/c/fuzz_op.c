/* fuzz_op.c - the slab of operations, their states and their lists, beside a table of lives.
 *
 * An input is a list of steps. The model knows each life of each operation: a cookie finds its
 * operation while that life lasts, and nothing before and after, however often the slot is used.
 */
#include "np_fuzz.h"

#include "io/np_oplist.h"

enum { LIVES_MAX_COUNT = 700, QUEUE_MAX_COUNT = LIVES_MAX_COUNT, EVENTS_MAX_COUNT = 8 };

struct life {
    struct np_op *op;
    np_udata cookie;
    uint8_t is_live, state, kind, is_listed, submitted;
    int fd;
};

struct model {
    struct np_op_slab slab;
    struct np_oplist list;
    struct life lives[LIVES_MAX_COUNT];
    uint32_t lives_count, live_count;
    uint32_t queue[QUEUE_MAX_COUNT], queue_count; /* lives in the list, in order */
    struct np_op *last_freed;
};

static void alloc(struct model *model, struct np_fuzz *fuzz, int without_memory)
{
    struct life life = {.is_live = 1, .state = NP_QUEUED};
    if (model->lives_count == LIVES_MAX_COUNT)
        return;
    life.kind = (uint8_t)(1 + np_fuzz_below(fuzz, NP_OP_KINDS - 1));
    life.fd = np_fuzz_byte(fuzz);
    void *owner = &model->lives[model->lives_count];
    int has_free = model->slab.free_head != 0;
    np_fail_allocations(without_memory);
    life.op = np_op_alloc(&model->slab, life.kind, life.fd, owner);
    np_fail_allocations(0);
    if (!life.op) {
        NP_ASSERT(without_memory && !has_free);
        return;
    }
    NP_ASSERT(has_free || !without_memory || life.op);
    NP_ASSERT(!model->last_freed || life.op == model->last_freed); /* the one in the cache */
    model->last_freed = NULL;
    NP_ASSERT(life.op->len_bytes == 0 && life.op->buf == NULL && life.op->next == 0);
    NP_ASSERT(life.op->submitted == 0 && life.op->fed == 0 && life.op->quiet == 0);
    life.cookie = np_op_udata(life.op);
    NP_ASSERT(life.cookie != NP_UDATA_NONE && np_udata_kind(life.cookie) == life.kind);
    for (uint32_t i = 0; i < model->lives_count; i++)
        NP_ASSERT(model->lives[i].cookie != life.cookie);
    memset(&life.op->buf, 0xff, offsetof(struct np_op, fd) - offsetof(struct np_op, buf));
    life.op->quiet = life.op->fed = 1;
    model->lives[model->lives_count++] = life;
    model->live_count++;
}

static void ended(struct model *model, struct life *life)
{
    life->is_live = 0;
    model->live_count--;
    model->last_freed = life->op;
}

static void free_one(struct model *model, struct life *life)
{
    if (!life->is_live || life->is_listed)
        return;
    np_op_free(&model->slab, life->op);
    ended(model, life);
}

/* One of the arrows of np_op.h, where it begins at this state. */
static void mark(struct life *life, uint32_t which)
{
    struct np_op *op = life->op;
    int is_kernel = life->state == NP_KERNEL;
    if (!life->is_live)
        return;
    if (which == 0 && life->state == NP_QUEUED) {
        np_op_mark_kernel(op);
        life->state = NP_KERNEL;
        life->submitted = 1;
    } else if (which == 1 && is_kernel) {
        np_op_mark_queued(op);
        life->state = NP_QUEUED;
        life->submitted = 0;
    } else if (which == 2 && (is_kernel || life->state == NP_ORPHAN)) {
        np_op_mark_sent(op);
        life->state = NP_SENT;
        life->submitted = 0;
    } else if (which == 3 && life->state != NP_SENT) {
        np_op_mark_orphan(op);
        life->state = NP_ORPHAN;
    }
}

static void enlist(struct model *model, struct life *life)
{
    if (!life->is_live || life->is_listed)
        return;
    np_oplist_push(&model->list, &model->slab, life->op);
    life->is_listed = 1;
    model->queue[model->queue_count++] = (uint32_t)(life - model->lives);
}

static struct life *dequeue(struct model *model)
{
    struct life *life = &model->lives[model->queue[0]];
    life->is_listed = 0;
    model->queue_count--;
    memmove(model->queue, model->queue + 1, model->queue_count * sizeof(model->queue[0]));
    return life;
}

static void pop(struct model *model)
{
    struct np_op *op = np_oplist_pop(&model->list, &model->slab);
    NP_ASSERT((op != NULL) == (model->queue_count > 0));
    if (op)
        NP_ASSERT(dequeue(model)->op == op && op->next == 0);
}

/* The last events of some of the list. */
static void take_events(struct model *model, struct np_fuzz *fuzz)
{
    struct np_event events[EVENTS_MAX_COUNT];
    int max = (int)np_fuzz_below(fuzz, EVENTS_MAX_COUNT + 1), res = np_fuzz_byte(fuzz);
    for (uint32_t i = 0; i < model->queue_count; i++)
        model->lives[model->queue[i]].op->res = res + (int)model->queue[i];
    int wanted = (uint32_t)max < model->queue_count ? max : (int)model->queue_count;
    NP_ASSERT(np_oplist_take(&model->list, &model->slab, events, max) == wanted);
    for (int i = 0; i < wanted; i++) {
        struct life *life = dequeue(model);
        NP_ASSERT(events[i].owner == life && events[i].op == life->cookie);
        NP_ASSERT(events[i].kind == life->kind && events[i].data == NULL && !events[i].flags);
        NP_ASSERT(events[i].res == res + (int)(life - model->lives));
        ended(model, life);
    }
}

/* A cookie of nobody, or one that is not true in one of its parts. */
static void find_strange(struct model *model, struct np_fuzz *fuzz, const struct life *life)
{
    np_udata cookie = life ? life->cookie ^ (UINT64_C(1) << np_fuzz_below(fuzz, 64))
                           : np_fuzz_number(fuzz, 8);
    for (uint32_t i = 0; i < model->lives_count; i++)
        if (model->lives[i].cookie == cookie)
            return;
    NP_ASSERT(np_op_find(&model->slab, cookie) == NULL);
    NP_ASSERT(np_udata_pack(np_udata_kind(cookie), np_udata_slot(cookie),
                            np_udata_generation(cookie)) == cookie);
}

/* The next life of its slot begins the count of generations anew. The cookies of 2^32 lives before
 * are nobody's by then. */
static void use_up(struct model *model, struct life *life)
{
    if (!life->is_live)
        return;
    for (uint32_t i = 0; i < model->lives_count; i++)
        if (model->lives[i].op == life->op)
            model->lives[i].cookie = NP_UDATA_NONE;
    life->op->generation = UINT32_MAX;
    life->cookie = np_op_udata(life->op);
}

static void check(const struct model *model, struct np_op_slab *slab)
{
    NP_ASSERT(slab->live_count == model->live_count);
    NP_ASSERT(model->list.count == model->queue_count);
    for (uint32_t i = 0; i < model->lives_count; i++) {
        const struct life *life = &model->lives[i];
        struct np_op *found = np_op_find(slab, life->cookie);
        NP_ASSERT(found == (life->is_live ? life->op : NULL));
        if (!found)
            continue;
        NP_ASSERT(found->owner == life && found->fd == life->fd && found->kind == life->kind);
        NP_ASSERT(found->state == life->state && found->submitted == life->submitted);
    }
}

static void step(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t what = np_fuzz_below(fuzz, 16);
    struct life *life = NULL;
    if (what >= 4 && model->lives_count)
        life = &model->lives[np_fuzz_below(fuzz, model->lives_count)];
    if (what < 4)
        alloc(model, fuzz, what == 3);
    else if (what == 4)
        pop(model);
    else if (what == 5)
        take_events(model, fuzz);
    else if (what == 6 || !life)
        find_strange(model, fuzz, life);
    else if (what < 9)
        free_one(model, life);
    else if (what < 13)
        mark(life, what - 9);
    else if (what == 15)
        use_up(model, life);
    else
        enlist(model, life);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 2000 ? bytes : 2000);
    memset(&model, 0, sizeof(model));
    np_op_slab_init(&model.slab);
    for (uint32_t n = np_fuzz_byte(&fuzz) & 1 ? 250 : 0; n > 0; n--) /* near a second chunk */
        alloc(&model, &fuzz, 0);
    while (np_fuzz_left(&fuzz)) {
        step(&model, &fuzz);
        check(&model, &model.slab);
    }
    np_op_slab_close(&model.slab, model.live_count != 0);
    return 0;
}
