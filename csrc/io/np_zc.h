/* np_zc.h - per connection: does zero-copy really happen on its path?
 *
 * Purpose   A zero-copy send pins pages and costs a second completion. That pays where the device
 *           reads the memory itself; on a path that copies anyway (loopback, veth into another
 *           network namespace, a device without scatter/gather) it is pure loss. Nobody can know
 *           the path in advance, but the kernel reports how each send went (REPORT_USAGE). So a
 *           connection asks until it is told that its bytes were copied, then asks rarely:
 *           after NP_ZC_RETRY_FIRST_COUNT sends that were large enough, and twice as many after
 *           each further copy, up to NP_ZC_RETRY_MAX_COUNT. A route can change; one real zero-copy
 *           send brings it all back. Reports that are not sure (NP_SEND_ALONE) change nothing.
 * Use       struct np_zc zc = {0};                            per connection
 *           flags |= np_zc_wants(&zc, bytes, is_registered, notices_outstanding);   per send
 *           np_zc_report(&zc, event->flags);                  per NP_OP_TRANSMIT event
 * Sizes     Below NP_ZC_REGISTERED_MIN_BYTES (registered memory) and NP_ZC_PINNED_MIN_BYTES (any
 *           other) a copy is cheaper than asking: np_limits.h has the measurements.
 * Threads   The connection's.
 */
#ifndef NP_ZC_H
#define NP_ZC_H

#include <stddef.h>
#include <stdint.h>

#include "base/np_assert.h"
#include "io/np_backend.h"
#include "base/np_limits.h"

struct np_zc {
    uint16_t skip_count : 12; /* sends that do not ask, before one does again */
    uint16_t level : 4;       /* copies reported in a row, as far as they matter */
};

NP_STATIC_ASSERT(sizeof(struct np_zc) == 2, "every connection has one");
NP_STATIC_ASSERT(NP_ZC_RETRY_MAX_COUNT < 1 << 12, "fits skip_count");
NP_STATIC_ASSERT(NP_ZC_RETRY_FIRST_COUNT << 15 >= NP_ZC_RETRY_MAX_COUNT, "level gets there");

/* The np_send_flags that a send of so many bytes should have: ZC and ALONE, or none.
 * notices_outstanding: of earlier sends of this connection. */
static inline int np_zc_wants(struct np_zc *zc, size_t bytes, int is_registered,
                              uint32_t notices_outstanding)
{
    if (bytes < (is_registered ? NP_ZC_REGISTERED_MIN_BYTES : NP_ZC_PINNED_MIN_BYTES))
        return 0;
    if (zc->skip_count == 0)
        return NP_SEND_ZC | (notices_outstanding ? 0 : NP_SEND_ALONE);
    zc->skip_count--;
    return 0;
}

/* What became of a send that asked: the flags of each of its events. */
static inline void np_zc_report(struct np_zc *zc, int event_flags)
{
    if (event_flags & NP_EV_UNSURE)
        return;
    if (event_flags & (NP_EV_COPIED | NP_EV_NO_ZC)) {
        uint32_t skip = (uint32_t)NP_ZC_RETRY_FIRST_COUNT << zc->level;
        if (zc->skip_count)
            return; /* several were under way: one report is enough */
        zc->skip_count = skip < NP_ZC_RETRY_MAX_COUNT ? skip : NP_ZC_RETRY_MAX_COUNT;
        if (skip < NP_ZC_RETRY_MAX_COUNT)
            zc->level++;
    } else if (event_flags & NP_EV_NOTIF) {
        zc->skip_count = 0;
        zc->level = 0;
    }
}

#endif
