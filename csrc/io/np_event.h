/* np_event.h - one completion, as Cython sees it. The same for both backends.
 *
 * Purpose   A backend's harvest fills an array of these; dispatch walks it. No pointers into
 *           backend internals, so the backend is free to reuse its slots at once.
 * Ownership `owner` is the cookie that was given when the operation was armed. While an operation
 *           is armed it holds one reference to its owner; an event without NP_EV_MORE is the
 *           operation's last and hands that reference to whoever dispatches it.
 *           `data` (RECV with res > 0) is the backend's memory: valid until the next harvest, and
 *           as long as somebody holds `buf` (np_buf_hold, before the next turn).
 */
#ifndef NP_EVENT_H
#define NP_EVENT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/np_assert.h"
#include "io/np_udata.h"

/* The low bit of a cookie, as the layers above use it: not one object, but a struct (aligned to two
 * bytes at least) whose first word leads to the object that gets the events. */
enum { NP_COOKIE_STRUCT = 1 };

enum np_event_flags {
    NP_EV_MORE = 1,     /* the operation goes on: further events follow */
    NP_EV_NONEMPTY = 2, /* RECV: the buffer ended before what the socket held (io_uring) */
    NP_EV_NOTIF = 4,    /* TRANSMIT, its last event: the kernel has let go of the memory */
    NP_EV_COPIED = 8,   /* with NOTIF: the kernel had copied the bytes after all */
    NP_EV_UNSURE = 32,  /* with COPIED: perhaps not, see NP_SEND_ALONE */
    NP_EV_NO_ZC = 16,   /* TRANSMIT: zero-copy was refused, nothing was taken (res is 0) */
};

struct np_buf; /* mem/np_bufring.h */

struct np_event {
    void *owner;   /* the cookie given to arm */
    uint8_t *data; /* RECV: the bytes received; else NULL */
    union {
        struct np_buf *buf; /* RECV: the buffer that they are in; else NULL */
        uint64_t cqe_flags; /* SQE: the completion's flags, IORING_CQE_F_* and buffer id */
    };
    np_udata op;   /* which operation; stale after its last event */
    int32_t res;   /* RECV, SEND, TRANSMIT: bytes; ACCEPT: the new fd; POLL: poll(2) bits;
                     * SQE: what the kernel said; or -errno */
    uint8_t kind;  /* enum np_op_kind */
    uint8_t flags; /* enum np_event_flags */
    uint16_t unused;
};

/* The result of a send or a receive that says: nothing was done, and nothing is wrong. EINTR: a
 * signal met it first, which also one that does not wait may say (send(2), recv(2)). */
static inline bool np_is_again(ptrdiff_t res)
{
    return res == -EAGAIN || res == -EINTR;
}

NP_STATIC_ASSERT(sizeof(struct np_event) == 40, "a batch of 256 is 10 KiB, and stays in the cache");

#endif
