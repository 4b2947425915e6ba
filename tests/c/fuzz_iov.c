/* fuzz_iov.c - the outbound chain, and the ring of gather lists, beside plain arrays.
 *
 * An input is a list of steps on one chain and one ring. After each step what the chain shows is
 * what the model has; a span of the ring is nobody else's until it is retired.
 */
#include "np_fuzz.h"

#include "mem/np_iov.h"
#include "mem/np_iovring.h"

enum { CHUNKS_MAX_COUNT = 512, GATHER_MAX_COUNT = 8, RING_COUNT = 16, SPANS_MAX_COUNT = 64 };

/* ---- the chain ------------------------------------------------------------------------------ */

struct chunk {
    void *owner;
    const uint8_t *base;
    size_t bytes;
};

struct model {
    struct np_iov iov;
    struct chunk chunks[CHUNKS_MAX_COUNT]; /* of which `done` bytes of the first were taken */
    uint32_t count;
    size_t done_bytes;
    uintptr_t next_owner;
};

static size_t total_of(const struct model *model)
{
    size_t total = 0;
    for (uint32_t i = 0; i < model->count; i++)
        total += model->chunks[i].bytes;
    return total - model->done_bytes;
}

static void drop_first(struct model *model)
{
    model->count--;
    memmove(model->chunks, model->chunks + 1, model->count * sizeof(model->chunks[0]));
}

static void push(struct model *model, struct np_fuzz *fuzz)
{
    /* Nothing reads these bytes: their addresses are all that the chain has. */
    struct chunk chunk = {(void *)++model->next_owner, (const uint8_t *)(model->next_owner << 20),
                          1 + np_fuzz_below(fuzz, 300)};
    int has_room = model->iov.count < model->iov.cap;
    if (model->count == CHUNKS_MAX_COUNT)
        return;
    int result = np_iov_push(&model->iov, chunk.owner, chunk.base, chunk.bytes);
    NP_ASSERT(result == (has_room ? 0 : -ENOBUFS));
    if (result == 0)
        model->chunks[model->count++] = chunk;
}

static void grow(struct model *model, int without_memory)
{
    int is_full = model->iov.count == model->iov.cap;
    np_fail_allocations(without_memory);
    int result = np_iov_grow(&model->iov);
    np_fail_allocations(0);
    NP_ASSERT(result == (is_full && without_memory ? -ENOMEM : 0));
    NP_ASSERT(result || model->iov.count < model->iov.cap);
}

/* Takes a part of it, in calls that hand out a few owners each. */
static void advance(struct model *model, struct np_fuzz *fuzz)
{
    size_t total = total_of(model);
    size_t taken = total ? np_fuzz_number(fuzz, 2) % (total + 1) : 0;
    int max = 1 + (int)np_fuzz_below(fuzz, GATHER_MAX_COUNT), count;
    int may_leave = np_fuzz_below(fuzz, 4) == 0; /* the rest is asked for by a later call */
    model->done_bytes += taken;
    do {
        void *owners[GATHER_MAX_COUNT];
        count = np_iov_advance(&model->iov, taken, owners, max);
        NP_ASSERT(count >= 0 && count <= max);
        for (int i = 0; i < count; i++) {
            NP_ASSERT(model->count && model->done_bytes >= model->chunks[0].bytes);
            NP_ASSERT(owners[i] == model->chunks[0].owner);
            model->done_bytes -= model->chunks[0].bytes;
            drop_first(model);
        }
        taken = 0;
    } while (count == max && !may_leave);
    if (count < max)
        NP_ASSERT(!model->count || model->done_bytes < model->chunks[0].bytes);
}

static void pop(struct model *model)
{
    void *owner = np_iov_pop(&model->iov);
    NP_ASSERT(owner == (model->count ? model->chunks[0].owner : NULL));
    if (!model->count)
        return;
    size_t bytes = model->chunks[0].bytes;
    model->done_bytes -= model->done_bytes < bytes ? model->done_bytes : bytes;
    drop_first(model);
}

static void check_chain(struct model *model, int max)
{
    const struct np_iov *iov = &model->iov;
    struct iovec spans[GATHER_MAX_COUNT];
    size_t skip = model->done_bytes;
    NP_ASSERT(iov->count == model->count);
    NP_ASSERT(iov->total_bytes == total_of(model));
    if (model->count && skip >= model->chunks[0].bytes)
        return; /* finished chunks are taken off before anybody looks */
    int count = np_iov_gather(iov, spans, max);
    NP_ASSERT(count == ((uint32_t)max < model->count ? max : (int)model->count));
    for (int i = 0; i < count; i++) {
        size_t bytes;
        const uint8_t *piece = np_iov_piece(iov, (uint32_t)i, &bytes);
        NP_ASSERT(piece == model->chunks[i].base + skip && bytes == model->chunks[i].bytes - skip);
        NP_ASSERT(spans[i].iov_base == piece && spans[i].iov_len == bytes);
        skip = 0;
    }
}

static void close_chain(struct model *model)
{
    while (model->count) {
        pop(model);
        check_chain(model, 1);
    }
    np_iov_close(&model->iov);
}

/* ---- the ring ------------------------------------------------------------------------------- */

struct rings {
    struct np_iovring ring;
    uint32_t users[RING_COUNT]; /* of each slot: the number of its span, or 0 */
    uint32_t first, next;       /* numbers of the spans that are not retired */
    uint32_t ends[SPANS_MAX_COUNT];
};

static void draw(struct rings *rings, struct np_fuzz *fuzz)
{
    uint32_t n = 1 + np_fuzz_below(fuzz, RING_COUNT + 2), end;
    if (rings->next - rings->first == SPANS_MAX_COUNT)
        return;
    struct iovec *span = np_iovring_draw(&rings->ring, n, &end);
    if (!span) { /* an empty ring has room for whatever fits at all */
        NP_ASSERT(n > RING_COUNT || rings->next != rings->first);
        return;
    }
    size_t at = (size_t)(span - rings->ring.slots);
    NP_ASSERT(at + n <= RING_COUNT);
    for (uint32_t i = 0; i < n; i++) {
        NP_ASSERT(rings->users[at + i] == 0);
        rings->users[at + i] = rings->next + 1;
    }
    rings->ends[rings->next++ % SPANS_MAX_COUNT] = end;
}

/* Some of the oldest spans are read; an older position says nothing new. */
static void retire(struct rings *rings, struct np_fuzz *fuzz)
{
    uint32_t count = np_fuzz_below(fuzz, 5), live = rings->next - rings->first;
    if (rings->first && np_fuzz_below(fuzz, 4) == 0)
        np_iovring_retire(&rings->ring, rings->ends[(rings->first - 1) % SPANS_MAX_COUNT]);
    if (count == 0 || count > live)
        return;
    rings->first += count;
    np_iovring_retire(&rings->ring, rings->ends[(rings->first - 1) % SPANS_MAX_COUNT]);
    for (int i = 0; i < RING_COUNT; i++)
        if (rings->users[i] <= rings->first)
            rings->users[i] = 0;
}

static void check_ring(const struct rings *rings)
{
    uint32_t used = 0;
    for (int i = 0; i < RING_COUNT; i++)
        used += rings->users[i] != 0;
    NP_ASSERT(np_iovring_used(&rings->ring) >= used);
    NP_ASSERT(np_iovring_used(&rings->ring) <= RING_COUNT);
    if (rings->first == rings->next)
        NP_ASSERT(np_iovring_used(&rings->ring) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    struct rings rings = {.first = 0};
    struct np_fuzz fuzz = np_fuzz_of(input, bytes);
    memset(&model, 0, sizeof(model));
    np_iov_init(&model.iov);
    NP_ASSERT(np_iovring_open(&rings.ring, RING_COUNT) == 0);
    /* Positions run on for ever: near their end, half of the time. */
    rings.ring.head = rings.ring.tail = np_fuzz_byte(&fuzz) & 1 ? UINT32_MAX - 20 : 0;
    while (np_fuzz_left(&fuzz)) {
        switch (np_fuzz_below(&fuzz, 8)) {
        case 0:
            grow(&model, np_fuzz_below(&fuzz, 4) == 0);
            break;
        case 1:
        case 2:
            push(&model, &fuzz);
            break;
        case 3:
            advance(&model, &fuzz);
            break;
        case 4:
            pop(&model);
            break;
        case 5:
            retire(&rings, &fuzz);
            break;
        default:
            draw(&rings, &fuzz);
        }
        check_chain(&model, 1 + (int)(bytes % GATHER_MAX_COUNT));
        check_ring(&rings);
    }
    close_chain(&model);
    np_iovring_close(&rings.ring);
    return 0;
}
