/* np_conn.c - the slabs of connections and flows, and what can be done with a flow. */
#include "server/np_conn.h"

#include <errno.h>
#include <string.h>

/* A flow that goes back keeps its ring of chunks up to this size: the next one needs it, too. */
#define KEPT_CHUNKS 8u

void np_conn_slab_init(struct np_conn_slab *slab)
{
    memset(slab, 0, sizeof(*slab));
}

void np_conn_slab_close(struct np_conn_slab *slab, int force)
{
    if (!force) {
        NP_ASSERT(slab->live_count == 0);
        NP_ASSERT(slab->flow_live_count == 0);
    }
    for (uint32_t i = 0; i < slab->flow_chunks_count * NP_CONN_CHUNK_COUNT; i++)
        free(np_flow_at(slab, i)->iov.chunks);
    for (uint32_t i = 0; i < slab->chunks_count; i++)
        free(slab->chunks[i]);
    for (uint32_t i = 0; i < slab->flow_chunks_count; i++)
        free(slab->flow_chunks[i]);
    free(slab->chunks);
    free(slab->flow_chunks);
    np_conn_slab_init(slab);
}

/* Adds a zeroed chunk to a table of chunks. Returns it, or NULL with nothing changed. */
static void *add_chunk(void ***table, uint32_t *count, uint32_t *cap, size_t item_bytes)
{
    if (*count == *cap) {
        uint32_t wider = *cap ? *cap * 2 : 4;
        void **grown = realloc(*table, wider * sizeof(void *));
        if (!grown)
            return NULL;
        *table = grown;
        *cap = wider;
    }
    void *chunk = aligned_alloc(64, item_bytes * NP_CONN_CHUNK_COUNT);
    if (!chunk)
        return NULL;
    memset(chunk, 0, item_bytes * NP_CONN_CHUNK_COUNT);
    (*table)[(*count)++] = chunk;
    return chunk;
}

static __attribute__((noinline, cold)) int grow_conns(struct np_conn_slab *slab)
{
    uint32_t first = slab->chunks_count * NP_CONN_CHUNK_COUNT;
    struct np_conn *chunk = add_chunk((void ***)&slab->chunks, &slab->chunks_count,
                                      &slab->chunks_cap, sizeof(struct np_conn));
    if (!chunk)
        return -ENOMEM;
    for (uint32_t i = NP_CONN_CHUNK_COUNT; i-- > 0;) {
        chunk[i].index = first + i;
        chunk[i].next = slab->free_head;
        slab->free_head = first + i + 1;
    }
    return 0;
}

struct np_conn *np_conn_get(struct np_conn_slab *slab, void *worker, int fd)
{
    if (NP_UNLIKELY(slab->free_head == 0) && grow_conns(slab) < 0)
        return NULL;
    struct np_conn *conn = np_conn_at(slab, slab->free_head - 1);
    uint32_t index = conn->index;
    slab->free_head = conn->next;
    slab->live_count++;
    memset(conn, 0, sizeof(*conn));
    np_task_init(&conn->task, 0, NP_LANE_NORMAL);
    conn->task.run = worker;
    conn->index = index;
    conn->serial = ++slab->serial;
    conn->fd = fd;
    return conn;
}

void np_conn_put(struct np_conn_slab *slab, struct np_conn *conn)
{
    NP_ASSERT(conn->fd < 0); /* put twice, or still open */
    NP_ASSERT(!conn->out);
    NP_ASSERT(!conn->task.context);
    NP_ASSERT(!np_conn_is_pinned(conn)); /* somebody up the stack still looks at it */
    conn->fd = -2;
    conn->flags = 0;
    conn->next = slab->free_head;
    slab->free_head = conn->index + 1;
    slab->live_count--;
}

static __attribute__((noinline, cold)) int grow_flows(struct np_conn_slab *slab)
{
    uint32_t first = slab->flow_chunks_count * NP_CONN_CHUNK_COUNT;
    struct np_flow *chunk = add_chunk((void ***)&slab->flow_chunks, &slab->flow_chunks_count,
                                      &slab->flow_chunks_cap, sizeof(struct np_flow));
    if (!chunk)
        return -ENOMEM;
    for (uint32_t i = NP_CONN_CHUNK_COUNT; i-- > 0;) {
        chunk[i].index = first + i;
        chunk[i].next = slab->flow_free_head;
        slab->flow_free_head = first + i + 1;
    }
    return 0;
}

struct np_flow *np_flow_get(struct np_conn_slab *slab)
{
    if (NP_UNLIKELY(slab->flow_free_head == 0) && grow_flows(slab) < 0)
        return NULL;
    struct np_flow *flow = np_flow_at(slab, slab->flow_free_head - 1);
    slab->flow_free_head = flow->next;
    slab->flow_live_count++;
    NP_DCHECK(flow->iov.count == 0);
    flow->live = 1;
    flow->op = 0;
    flow->sending = 0;
    return flow;
}

void np_flow_put(struct np_conn_slab *slab, struct np_flow *flow)
{
    NP_ASSERT(flow->live);
    NP_ASSERT(flow->iov.count == 0);
    NP_ASSERT(!flow->op);
    if (flow->iov.cap > KEPT_CHUNKS)
        np_iov_close(&flow->iov);
    flow->live = 0;
    flow->next = slab->flow_free_head;
    slab->flow_free_head = flow->index + 1;
    slab->flow_live_count--;
}

int np_flow_push(struct np_flow *flow, void *owner, const void *base, size_t len_bytes)
{
    flow->room_bytes = 0;
    if (NP_LIKELY(np_iov_push(&flow->iov, owner, base, len_bytes) == 0))
        return 0;
    if (np_iov_grow(&flow->iov) < 0)
        return -ENOMEM;
    return np_iov_push(&flow->iov, owner, base, len_bytes);
}

NP_STATIC_ASSERT(NP_FLOW_JOINED_BYTES <= UINT16_MAX, "room_bytes");
NP_STATIC_ASSERT(NP_FLOW_JOIN_MAX_BYTES <= NP_FLOW_JOINED_BYTES, "a new piece takes any of them");

int np_flow_copy_in(struct np_flow *flow, const void *base, size_t len_bytes)
{
    struct np_iov *iov = &flow->iov;
    if (flow->room_bytes >= len_bytes) {
        struct np_chunk *newest = &iov->chunks[(iov->head + iov->count - 1) & (iov->cap - 1)];
        memcpy((uint8_t *)(uintptr_t)newest->base + newest->len_bytes, base, len_bytes);
        newest->len_bytes += len_bytes;
        iov->total_bytes += len_bytes;
        flow->room_bytes = (uint16_t)(flow->room_bytes - len_bytes);
        return 1;
    }
    uint8_t *joined = malloc(NP_FLOW_JOINED_BYTES);
    if (!joined)
        return -ENOMEM;
    memcpy(joined, base, len_bytes);
    if (np_flow_push(flow, joined + NP_OWNER_HEAP, joined, len_bytes) < 0) {
        free(joined);
        return -ENOMEM;
    }
    flow->room_bytes = (uint16_t)(NP_FLOW_JOINED_BYTES - len_bytes);
    return 1;
}

int np_flow_push_front(struct np_flow *flow, void *owner, const void *base, size_t len_bytes)
{
    struct np_iov *iov = &flow->iov;
    NP_DCHECK(!flow->sending);
    if (iov->count == 0)
        return np_flow_push(flow, owner, base, len_bytes);
    if (iov->count == iov->cap && np_iov_grow(iov) < 0)
        return -ENOMEM;
    struct np_chunk *first = &iov->chunks[iov->head];
    first->base += iov->skip_bytes; /* only the oldest piece can be cut */
    first->len_bytes -= iov->skip_bytes;
    iov->skip_bytes = 0;
    iov->head = (iov->head - 1) & (iov->cap - 1);
    iov->chunks[iov->head] = (struct np_chunk){
        .owner = owner, .base = base, .len_bytes = len_bytes};
    iov->count++;
    iov->total_bytes += len_bytes;
    return 0;
}

static struct np_chunk *chunk_at(const struct np_iov *iov, uint32_t i)
{
    return &iov->chunks[(iov->head + i) & (iov->cap - 1)];
}

/* A second owner for a part of a chunk: another hold, or a copy. 0 or -ENOMEM. */
static int share(void **owner, const uint8_t **base, size_t len_bytes)
{
    if (((uintptr_t)*owner & NP_OWNER_MASK) == NP_OWNER_BUF) {
        np_buf_hold((struct np_buf *)((uintptr_t)*owner - NP_OWNER_BUF));
        return 0;
    }
    uint8_t *copy = malloc(len_bytes);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, *base, len_bytes);
    *base = copy;
    *owner = copy + NP_OWNER_HEAP;
    return 0;
}

int np_flow_move(struct np_flow *from, struct np_flow *to, size_t len_bytes)
{
    NP_DCHECK(len_bytes <= from->iov.total_bytes);
    while (len_bytes) {
        struct np_chunk *chunk = chunk_at(&from->iov, 0);
        const uint8_t *base = chunk->base + from->iov.skip_bytes;
        size_t there_bytes = chunk->len_bytes - from->iov.skip_bytes;
        if (there_bytes <= len_bytes) {
            if (np_flow_push(to, chunk->owner, base, there_bytes) < 0)
                return -ENOMEM;
            np_iov_pop(&from->iov);
            len_bytes -= there_bytes;
            continue;
        }
        void *owner = chunk->owner;
        if (share(&owner, &base, len_bytes) < 0)
            return -ENOMEM;
        if (np_flow_push(to, owner, base, len_bytes) < 0) {
            np_owner_drop(owner);
            return -ENOMEM;
        }
        np_iov_advance(&from->iov, len_bytes, NULL, 0);
        len_bytes = 0;
    }
    return 0;
}

int64_t np_flow_shed(struct np_flow *flow)
{
    struct np_iov *iov = &flow->iov;
    int64_t copied_bytes = 0;
    for (uint32_t i = flow->sending; i < iov->count; i++) {
        struct np_chunk *chunk = chunk_at(iov, i);
        if (((uintptr_t)chunk->owner & NP_OWNER_MASK) != NP_OWNER_BUF)
            continue;
        /* What the kernel has taken of the oldest one is not copied, but keeps its place: the
         * chain counts from the chunk's beginning. */
        size_t skip_bytes = i == 0 ? iov->skip_bytes : 0;
        uint8_t *copy = malloc(chunk->len_bytes);
        if (!copy)
            return -ENOMEM;
        memcpy(copy + skip_bytes, chunk->base + skip_bytes, chunk->len_bytes - skip_bytes);
        copied_bytes += (int64_t)(chunk->len_bytes - skip_bytes);
        np_owner_drop(chunk->owner);
        chunk->base = copy;
        chunk->owner = copy + NP_OWNER_HEAP;
    }
    return copied_bytes;
}

void np_flow_copy(const struct np_flow *flow, void *target, size_t len_bytes)
{
    uint8_t *to = target;
    size_t skip_bytes = flow->iov.skip_bytes;
    NP_DCHECK(len_bytes <= flow->iov.total_bytes);
    for (uint32_t i = 0; len_bytes; i++) {
        const struct np_chunk *chunk = chunk_at(&flow->iov, i);
        size_t part_bytes = chunk->len_bytes - skip_bytes;
        if (part_bytes > len_bytes)
            part_bytes = len_bytes;
        memcpy(to, chunk->base + skip_bytes, part_bytes);
        to += part_bytes;
        len_bytes -= part_bytes;
        skip_bytes = 0;
    }
}

/* Whether `wanted` begins at `at`, of which `left_bytes` are in piece i. */
static int matches(const struct np_iov *iov, uint32_t i, const uint8_t *at, size_t left_bytes,
                   const uint8_t *wanted, size_t wanted_bytes)
{
    for (;;) {
        size_t part_bytes = left_bytes < wanted_bytes ? left_bytes : wanted_bytes;
        if (memcmp(at, wanted, part_bytes) != 0)
            return 0;
        wanted += part_bytes;
        wanted_bytes -= part_bytes;
        if (wanted_bytes == 0)
            return 1;
        if (++i >= iov->count)
            return 0;
        at = chunk_at(iov, i)->base;
        left_bytes = chunk_at(iov, i)->len_bytes;
    }
}

int64_t np_flow_find(const struct np_flow *flow, const uint8_t *wanted, size_t wanted_bytes,
                     size_t start_bytes)
{
    const struct np_iov *iov = &flow->iov;
    size_t at_bytes = 0; /* where the piece begins */
    for (uint32_t i = 0; i < iov->count && wanted_bytes; i++) {
        const struct np_chunk *chunk = chunk_at(iov, i);
        size_t skip_bytes = i == 0 ? iov->skip_bytes : 0;
        const uint8_t *base = chunk->base + skip_bytes;
        size_t size_bytes = chunk->len_bytes - skip_bytes;
        size_t j = start_bytes > at_bytes ? start_bytes - at_bytes : 0;
        while (j < size_bytes) {
            const uint8_t *hit = memchr(base + j, wanted[0], size_bytes - j);
            if (!hit)
                break;
            j = (size_t)(hit - base);
            if (matches(iov, i, hit, size_bytes - j, wanted, wanted_bytes))
                return (int64_t)(at_bytes + j + wanted_bytes);
            j++;
        }
        at_bytes += size_bytes;
    }
    return -1;
}

int np_flow_gather(const struct np_flow *flow, struct iovec *out, int max, size_t *total)
{
    size_t skip_bytes = flow->iov.skip_bytes;
    int n = 0;
    *total = 0;
    while (n < max && (uint32_t)n < flow->iov.count) {
        const struct np_chunk *chunk = chunk_at(&flow->iov, (uint32_t)n);
        if (((uintptr_t)chunk->owner & NP_OWNER_MASK) == NP_OWNER_FILE)
            break;
        out[n].iov_base = (void *)(uintptr_t)(chunk->base + skip_bytes);
        out[n].iov_len = chunk->len_bytes - skip_bytes;
        *total += out[n].iov_len;
        skip_bytes = 0;
        n++;
    }
    return n;
}
