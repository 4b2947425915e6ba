/* np_life.h - the life of what has a file descriptor: a transport, a connection of the server.
 *
 *              close()               all was sent            its user was told
 *     NP_OPEN ──────────► NP_CLOSING ──────────────► NP_LOST ──────────────────► NP_GONE
 *        │                    │   abort(), an error    ▲                           │
 *        └────────────────────┴────────────────────────┘    the kernel's last word ▼
 *                                                                           fd closed
 *
 * Use       flags |= np_life(NP_LOST), when !(flags & NP_LOST). A state has the bits of all earlier
 *           ones: so one bit says "so far, or further", and one mask asks for it and other flags.
 * States    OPEN     reads and sends
 *           CLOSING  reads no more, sends what was written
 *           LOST     sends no more; its user is being told, or is about to be
 *           GONE     nobody has it any more but, perhaps, an operation in the kernel
 */
#ifndef NP_LIFE_H
#define NP_LIFE_H

enum np_life {
    NP_OPEN = 0,
    NP_CLOSING = 1 << 0,
    NP_LOST = 1 << 1,
    NP_GONE = 1 << 2,
    NP_LIFE_BITS = 3 /* flags of other meanings begin here */
};

/* The bits of a state that is not OPEN. */
static inline unsigned np_life(unsigned state)
{
    return state | (state - 1);
}

#endif
