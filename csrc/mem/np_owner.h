/* np_owner.h - what keeps the memory of a chunk (np_iov.h).
 *
 * Use       The kind stands in the low bits of the owner. What np_iov hands back goes to
 *           np_owner_drop. A reference to an object is the pointer itself.
 * Threads   The loop's thread only.
 */
#ifndef NP_OWNER_H
#define NP_OWNER_H

#include <stdint.h>
#include <stdlib.h>

#include "mem/np_bufring.h"

enum np_owner {
    NP_OWNER_OBJECT = 0, /* a reference to an object of the layer above */
    NP_OWNER_BUF = 1,    /* a hold of a struct np_buf: received memory */
    NP_OWNER_HEAP = 2,   /* malloc: bytes that had to be copied */
    NP_OWNER_FILE = 3,   /* a reference; no memory: base counts from the file's offset (sendfile) */
    NP_OWNER_MASK = 7
};

/* Lets go of an owner. Returns the reference that the layer above has to drop, or NULL. */
static inline void *np_owner_drop(void *owner)
{
    uintptr_t tag = (uintptr_t)owner & NP_OWNER_MASK;
    void *what = (void *)((uintptr_t)owner - tag);
    if (tag == NP_OWNER_BUF) {
        np_buf_release((struct np_buf *)what);
        return NULL;
    }
    if (tag == NP_OWNER_HEAP) {
        free(what);
        return NULL;
    }
    return what;
}

#endif
