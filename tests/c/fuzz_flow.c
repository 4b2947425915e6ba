/* fuzz_flow.c - what a connection has unread or unsent, beside two strings of bytes.
 *
 * An input is a list of steps on two flows: pieces of objects, of receive buffers and of the heap
 * are put to their ends, moved from one to the other, copied, searched, taken away; memory runs
 * out. Each flow reads as its string does, and every piece is let go of once.
 */
#include "np_fuzz.h"

#include "server/np_conn.h"

enum { FLOWS = 2, FLOW_MAX_BYTES = 1 << 15, PIECES_MAX_COUNT = 400, BUF_BYTES = 512, SPANS = 6 };

struct string {
    struct np_flow *flow;
    size_t bytes;
    uint8_t text[FLOW_MAX_BYTES];
};

struct model {
    struct np_conn_slab slab;
    struct np_bufring ring;
    struct string strings[FLOWS];
    _Alignas(8) uint8_t object[256]; /* the memory of all objects */
    int64_t references;              /* to it, in the flows */
    uint8_t next;
};

/* ---- pieces --------------------------------------------------------------------------------- */

/* A piece of `bytes` bytes: its owner and its place. 0: there is none of this kind. */
static int make_piece(struct model *model, uint32_t kind, size_t bytes, void **owner,
                      const uint8_t **base)
{
    if (kind == NP_OWNER_OBJECT) {
        *owner = model->object;
        *base = model->object + (sizeof(model->object) - bytes) / 2;
        model->references++;
        return 1;
    }
    if (kind == NP_OWNER_BUF) {
        uint32_t room;
        int bid = np_bufring_peek(&model->ring, (uint32_t)bytes, &room);
        if (bid < 0)
            return 0;
        struct np_buf *buf = np_bufring_buf(&model->ring, (uint16_t)bid);
        uint8_t *at = np_bufring_at(&model->ring, (uint16_t)bid);
        for (size_t i = 0; i < bytes; i++)
            at[i] = model->next++;
        *base = np_bufring_consume(&model->ring, (uint16_t)bid, (uint32_t)bytes, room > bytes);
        np_buf_hold(buf);
        *owner = (uint8_t *)buf + NP_OWNER_BUF;
        return 1;
    }
    uint8_t *copy = malloc(bytes);
    NP_ASSERT(copy != NULL);
    for (size_t i = 0; i < bytes; i++)
        copy[i] = model->next++ % 7; /* what is searched for comes often */
    *owner = copy + NP_OWNER_HEAP;
    *base = copy;
    return 1;
}

static void drop_owner(struct model *model, void *owner)
{
    void *object = np_owner_drop(owner);
    NP_ASSERT(object == NULL || object == model->object);
    model->references -= object != NULL;
}

static void push(struct model *model, struct string *string, struct np_fuzz *fuzz, int to_front)
{
    static const uint32_t KINDS[] = {NP_OWNER_OBJECT, NP_OWNER_BUF, NP_OWNER_HEAP};
    uint32_t kind = KINDS[np_fuzz_below(fuzz, 3)];
    size_t bytes = 1 + np_fuzz_below(fuzz, sizeof(model->object));
    const uint8_t *base;
    void *owner;
    if (string->bytes + bytes > FLOW_MAX_BYTES || string->flow->iov.count == PIECES_MAX_COUNT ||
        (to_front && string->flow->sending) || !make_piece(model, kind, bytes, &owner, &base))
        return;
    np_fail_allocations(np_fuzz_below(fuzz, 8) == 7);
    int result = to_front ? np_flow_push_front(string->flow, owner, base, bytes)
                          : np_flow_push(string->flow, owner, base, bytes);
    np_fail_allocations(0);
    if (result < 0) {
        NP_ASSERT(result == -ENOMEM);
        drop_owner(model, owner);
        return;
    }
    size_t at = to_front ? 0 : string->bytes;
    memmove(string->text + at + bytes, string->text + at, string->bytes - at);
    memcpy(string->text + at, base, bytes);
    string->bytes += bytes;
}

/* Small pieces are joined where there are many. */
static void join(struct model *model, struct string *string, size_t bytes, int without_memory)
{
    if (string->bytes + bytes > FLOW_MAX_BYTES || string->flow->iov.count == PIECES_MAX_COUNT)
        return;
    np_fail_allocations(without_memory);
    int result = np_flow_join(string->flow, model->object, bytes);
    np_fail_allocations(0);
    NP_ASSERT(result == 1 || (result == 0 && string->flow->iov.count < NP_FLOW_APART_COUNT) ||
              (result == -ENOMEM && without_memory));
    if (result != 1)
        return;
    memcpy(string->text + string->bytes, model->object, bytes);
    string->bytes += bytes;
}

/* ---- the other steps ------------------------------------------------------------------------ */

static void cut_front(struct string *string, size_t bytes)
{
    string->bytes -= bytes;
    memmove(string->text, string->text + bytes, string->bytes);
}

static void advance(struct model *model, struct string *string, size_t bytes)
{
    void *owners[SPANS];
    int count;
    cut_front(string, bytes);
    do {
        count = np_iov_advance(&string->flow->iov, bytes, owners, SPANS);
        for (int i = 0; i < count; i++)
            drop_owner(model, owners[i]);
        bytes = 0;
    } while (count == SPANS);
    string->flow->sending = 0;
}

/* Without memory a part has moved: as much as is missing at one end has come to the other. */
static void move(struct model *model, struct string *from, size_t bytes, int without_memory)
{
    struct string *to = from == model->strings ? from + 1 : model->strings;
    size_t before = to->flow->iov.total_bytes;
    if (to->bytes + bytes > FLOW_MAX_BYTES || from->flow->sending)
        return;
    /* A piece that is cut in two may not be an object's here: np_conn.h. It is copied. */
    np_fail_allocations(without_memory);
    int result = np_flow_move(from->flow, to->flow, bytes);
    np_fail_allocations(0);
    NP_ASSERT(result == 0 || (result == -ENOMEM && without_memory));
    size_t moved = to->flow->iov.total_bytes - before;
    NP_ASSERT(result < 0 ? moved < bytes : moved == bytes);
    memcpy(to->text + to->bytes, from->text, moved);
    to->bytes += moved;
    cut_front(from, moved);
}

static void shed(struct string *string, int without_memory)
{
    np_fail_allocations(without_memory);
    int64_t result = np_flow_shed(string->flow);
    np_fail_allocations(0);
    NP_ASSERT(result >= 0 || (result == -ENOMEM && without_memory));
    const struct np_iov *iov = &string->flow->iov;
    for (uint32_t i = string->flow->sending; result >= 0 && i < iov->count; i++) {
        const struct np_chunk *chunk = &iov->chunks[(iov->head + i) & (iov->cap - 1)];
        NP_ASSERT(((uintptr_t)chunk->owner & NP_OWNER_MASK) != NP_OWNER_BUF);
    }
}

static void find(const struct string *string, struct np_fuzz *fuzz)
{
    uint8_t wanted[4];
    size_t wanted_bytes = 1 + np_fuzz_below(fuzz, 4), start = np_fuzz_number(fuzz, 2);
    int64_t model = -1;
    for (size_t i = 0; i < wanted_bytes; i++)
        wanted[i] = np_fuzz_byte(fuzz) % 9;
    start %= string->bytes + 3;
    for (size_t i = start; model < 0 && i + wanted_bytes <= string->bytes; i++)
        if (memcmp(string->text + i, wanted, wanted_bytes) == 0)
            model = (int64_t)(i + wanted_bytes);
    NP_ASSERT(np_flow_find(string->flow, wanted, wanted_bytes, start) == model);
}

static void gather(const struct string *string, int max)
{
    struct iovec spans[SPANS];
    size_t total, at = 0;
    int count = np_flow_gather(string->flow, spans, max, &total);
    NP_ASSERT(count <= max);
    NP_ASSERT(count == max || total == string->bytes);
    for (int i = 0; i < count; i++) {
        NP_ASSERT(spans[i].iov_len > 0);
        NP_ASSERT(memcmp(spans[i].iov_base, string->text + at, spans[i].iov_len) == 0);
        at += spans[i].iov_len;
    }
    NP_ASSERT(at == total);
}

/* A flow that goes back and is taken again is as good as new. */
static void exchange(struct model *model, struct string *string)
{
    if (string->bytes)
        return;
    np_flow_put(&model->slab, string->flow);
    string->flow = np_flow_get(&model->slab);
    NP_ASSERT(string->flow && string->flow->iov.count == 0 && string->flow->iov.total_bytes == 0 &&
              string->flow->iov.skip_bytes == 0 && string->flow->op == 0);
}

static void check(const struct string *string, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    NP_ASSERT(copy != NULL);
    NP_ASSERT(string->flow->iov.total_bytes == string->bytes);
    np_flow_copy(string->flow, copy, bytes);
    NP_ASSERT(np_fuzz_is_same(copy, string->text, bytes));
    free(copy);
}

static void step(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t what = np_fuzz_below(fuzz, 32), which = what & 1;
    struct string *string = &model->strings[which];
    size_t part = string->bytes ? np_fuzz_number(fuzz, 2) % (string->bytes + 1) : 0;
    switch (what / 2) {
    case 0:
        advance(model, string, part);
        break;
    case 1:
    case 2:
        move(model, string, part, part & 1);
        break;
    case 3:
        shed(string, part & 1);
        break;
    case 4:
        np_bufring_recycle(&model->ring);
        break;
    case 5:
        gather(string, 1 + (int)np_fuzz_below(fuzz, SPANS));
        break;
    case 6:
        exchange(model, string);
        break;
    case 7: /* the kernel reads its first pieces */
        string->flow->sending = string->flow->iov.count ? 1 : 0;
        break;
    case 8:
    case 9:
        find(string, fuzz);
        break;
    case 10:
        join(model, string, 1 + np_fuzz_below(fuzz, sizeof(model->object)), part & 1);
        break;
    default:
        push(model, string, fuzz, what / 2 > 13);
    }
    check(string, string->bytes);
    check(&model->strings[!which], part < model->strings[!which].bytes ? part : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes < 1000 ? bytes : 1000);
    model.references = 0;
    model.next = 0;
    for (size_t i = 0; i < sizeof(model.object); i++)
        model.object[i] = (uint8_t)(i % 9);
    np_conn_slab_init(&model.slab);
    NP_ASSERT(np_bufring_open(&model.ring, 4, BUF_BYTES) == 0);
    for (int i = 0; i < FLOWS; i++) {
        model.strings[i].flow = np_flow_get(&model.slab);
        model.strings[i].bytes = 0;
        NP_ASSERT(model.strings[i].flow != NULL);
    }
    while (np_fuzz_left(&fuzz))
        step(&model, &fuzz);
    np_bufring_close(&model.ring); /* under those who still hold some of it */
    for (int i = 0; i < FLOWS; i++) {
        check(&model.strings[i], model.strings[i].bytes);
        advance(&model, &model.strings[i], model.strings[i].bytes);
        np_flow_put(&model.slab, model.strings[i].flow);
    }
    NP_ASSERT(model.references == 0);
    np_conn_slab_close(&model.slab, 0);
    return 0;
}
