/* np_pins.h - what zero-copy sends of one connection still hold, in the order of sending.
 *
 * Purpose   A result says that bytes were taken, and the connection's chain moves on; the memory
 *           behind them is the kernel's until the notification. Between the two its owners wait
 *           here: np_pins_push per owner when the result is in, np_pins_notice when the
 *           notification is, then np_pins_pop until it returns NULL.
 * Order     Notifications of one stream come in the order of sending but for rare cases (a part
 *           that was copied is let go at once); owners come back in the order of sending anyway:
 *           one that is let go early waits for those before it.
 * Ownership An owner (an opaque reference) is the queue's from push to pop. A piece that several
 *           operations sent parts of is pushed once for each of them.
 * Errors    reserve: 0 or -ENOMEM with nothing changed; the other verbs cannot fail.
 * Threads   The loop's thread only. The memory goes with the last pin: an idle connection has none.
 */
#ifndef NP_PINS_H
#define NP_PINS_H

#include <stdint.h>

#include "io/np_udata.h"

struct np_pin {
    void *owner;
    np_udata op; /* NP_UDATA_NONE: its notification has come */
};

struct np_pins {
    struct np_pin *pins;
    uint32_t head, count, cap; /* cap is a power of two, or 0 */
};

static inline void np_pins_init(struct np_pins *pins) { *pins = (struct np_pins){0}; }
/* Room for `count` more pushes: before sending, because afterwards nothing may fail. */
int np_pins_reserve(struct np_pins *pins, uint32_t count);
void np_pins_push(struct np_pins *pins, np_udata op, void *owner);
void np_pins_notice(struct np_pins *pins, np_udata op);
/* The owner of the oldest pin if it was let go, else NULL. */
void *np_pins_pop(struct np_pins *pins);
/* The same whether it was let go or not: the loop dies. NULL when there is none. */
void *np_pins_force_pop(struct np_pins *pins);

#endif
