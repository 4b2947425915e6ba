/* np_oplist.h - a FIFO of operations, linked through np_op.next; and how they become events.
 *
 * Purpose   Where operations wait: for a free submission entry, for receive buffers, for their
 *           last event to be harvested. An operation is in at most one list.
 * Threads   The loop's thread only.
 */
#ifndef NP_OPLIST_H
#define NP_OPLIST_H

#include "io/np_event.h"
#include "io/np_op.h"

struct np_oplist {
    uint32_t head, tail; /* slot + 1, or 0 */
    uint32_t count;
};

static inline void np_oplist_push(struct np_oplist *list, struct np_op_slab *slab, struct np_op *op)
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

static inline void np_op_emit_bytes(struct np_event *event, const struct np_op *op, uint8_t *data,
                                    struct np_buf *buf, int res, int flags)
{
    event->owner = op->owner;
    event->data = data;
    event->buf = buf;
    event->op = np_op_udata(op);
    event->res = res;
    event->kind = op->kind;
    event->flags = (uint8_t)flags;
    event->unused = 0;
}

/* An event without bytes. */
static inline void np_op_emit(struct np_event *event, const struct np_op *op, int res, int flags)
{
    np_op_emit_bytes(event, op, NULL, NULL, res, flags);
}

/* The last events of operations that ended without the kernel's help (op->res says how): at most
 * `max` are written, their operations are free. Returns how many. */
static inline int np_oplist_take(struct np_oplist *list, struct np_op_slab *slab,
                                 struct np_event *events, int max)
{
    int n = 0;
    struct np_op *op;
    while (n < max && (op = np_oplist_pop(list, slab)) != NULL) {
        np_op_emit(&events[n++], op, op->res, 0);
        np_op_free(slab, op);
    }
    return n;
}

#endif
