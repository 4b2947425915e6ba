/* np_op.c - the slab of operations: chunks that never move, a LIFO list of free slots.
 *
 * LIFO because the slot that was freed last is the one still in the cache. Its generation moves on
 * when it is freed, not when it is taken again: from that moment the old cookie is stale.
 */
#include "io/np_op.h"

#include <string.h>

#define CHUNKS_MAX (NP_OP_MAX_SLOTS / NP_OP_CHUNK_SLOTS)

NP_STATIC_ASSERT(NP_OP_MAX_SLOTS % NP_OP_CHUNK_SLOTS == 0, "the last chunk is a whole one");
NP_STATIC_ASSERT((NP_OP_CHUNK_SLOTS & (NP_OP_CHUNK_SLOTS - 1)) == 0, "np_op_at divides by it");
NP_STATIC_ASSERT(NP_OP_KINDS <= NP_UDATA_RESERVED, "kinds of slots and reserved kinds are apart");

void np_op_slab_init(struct np_op_slab *slab)
{
    memset(slab, 0, sizeof(*slab));
}

void np_op_slab_close(struct np_op_slab *slab, int force)
{
    if (!force)
        NP_ASSERT(slab->live_count == 0);
    for (uint32_t i = 0; i < slab->chunks_count; i++)
        free(slab->chunks[i]);
    free(slab->chunks);
    np_op_slab_init(slab);
}

/* One more entry in the table of chunks: 0, or -1 with the slab unchanged. */
static int slab_reserve_chunk(struct np_op_slab *slab)
{
    if (slab->chunks_count < slab->chunks_cap)
        return 0;
    uint32_t cap = slab->chunks_cap ? slab->chunks_cap * 2 : 4;
    struct np_op **chunks = realloc(slab->chunks, cap * sizeof(struct np_op *));
    if (!chunks)
        return -1;
    slab->chunks = chunks;
    slab->chunks_cap = cap;
    return 0;
}

/* Adds a chunk of free slots: 0, or -1 with nothing changed that anybody could see. */
static __attribute__((noinline, cold)) int slab_grow(struct np_op_slab *slab)
{
    if (slab->chunks_count == CHUNKS_MAX || slab_reserve_chunk(slab) < 0)
        return -1;
    struct np_op *chunk = aligned_alloc(64, NP_OP_CHUNK_SLOTS * sizeof(struct np_op));
    if (!chunk)
        return -1;
    memset(chunk, 0, NP_OP_CHUNK_SLOTS * sizeof(struct np_op));

    uint32_t first = slab->chunks_count * NP_OP_CHUNK_SLOTS;
    for (uint32_t i = 0; i < NP_OP_CHUNK_SLOTS; i++) {
        chunk[i].slot = first + i;
        chunk[i].generation = 1;
        chunk[i].next = first + i + 2; /* the neighbour's slot + 1: low numbers go first */
    }
    chunk[NP_OP_CHUNK_SLOTS - 1].next = slab->free_head;
    slab->free_head = first + 1;
    slab->chunks[slab->chunks_count++] = chunk;
    return 0;
}

struct np_op *np_op_alloc(struct np_op_slab *slab, uint8_t kind, int fd, void *owner)
{
    NP_DCHECK(kind > NP_OP_NONE);
    NP_DCHECK(kind < NP_OP_KINDS);
    if (NP_UNLIKELY(slab->free_head == 0) && slab_grow(slab) < 0)
        return NULL;

    struct np_op *op = np_op_at(slab, slab->free_head - 1);
    NP_DCHECK(op->state == NP_FREE);
    slab->free_head = op->next;
    slab->live_count++;
    *op = (struct np_op){
        /* all that is not named here starts at zero */
        .owner = owner, .fd = fd,           .slot = op->slot, .generation = op->generation,
        .kind = kind,   .state = NP_QUEUED,
    };
    return op;
}

void np_op_free(struct np_op_slab *slab, struct np_op *op)
{
    NP_ASSERT(op->state != NP_FREE);
    NP_DCHECK(op == np_op_at(slab, op->slot));
    NP_DCHECK(slab->live_count > 0);
    if (NP_UNLIKELY(++op->generation == 0))
        op->generation = 1;
    op->state = NP_FREE;
    op->owner = NULL;
    op->next = slab->free_head;
    slab->free_head = op->slot + 1;
    slab->live_count--;
}

struct np_op *np_op_find(struct np_op_slab *slab, np_udata u)
{
    uint32_t slot = np_udata_slot(u);
    if (NP_UNLIKELY(slot / NP_OP_CHUNK_SLOTS >= slab->chunks_count))
        return NULL;
    struct np_op *op = np_op_at(slab, slot);
    if (NP_UNLIKELY(op->generation != np_udata_generation(u)))
        return NULL;
    /* A free slot already carries the generation of its next life. */
    if (NP_UNLIKELY(op->state == NP_FREE || op->kind != np_udata_kind(u)))
        return NULL;
    return op;
}
