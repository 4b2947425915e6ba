/* np_oplist.h - a FIFO of operations, linked through np_op.next.
 *
 * Purpose   Where operations wait: for a free submission entry, for receive buffers, for their
 *           last event to be harvested. An operation is in at most one list.
 * Threads   The loop's thread only.
 */
#ifndef NP_OPLIST_H
#define NP_OPLIST_H

#include "np_op.h"

struct np_oplist {
    uint32_t head, tail; /* slot + 1, or 0 */
    uint32_t count;
};

static inline void np_oplist_push(struct np_oplist *list, struct np_op_slab *slab,
                                  struct np_op *op)
{
    op->next = 0;
    if (list->tail)
        np_op_at(slab, list->tail - 1)->next = op->slot + 1;
    else
        list->head = op->slot + 1;
    list->tail = op->slot + 1;
    list->count++;
}

static inline struct np_op *np_oplist_pop(struct np_oplist *list, struct np_op_slab *slab)
{
    if (!list->head)
        return NULL;
    struct np_op *op = np_op_at(slab, list->head - 1);
    list->head = op->next;
    if (!list->head)
        list->tail = 0;
    op->next = 0;
    list->count--;
    return op;
}

#endif
