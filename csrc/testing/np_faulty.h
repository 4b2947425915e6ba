/* np_faulty.h - a backend of bad days: wraps a real one, and from a seed makes happen what the
 * kernel's documents allow and what a quiet machine does not show.
 *
 * Purpose   Tests of everything above the table of verbs: results that are short, late, in another
 *           order, or errors. For tests only: no extension but netpoll._native.testing is linked
 *           with it, and a loop that was not wrapped does not know of it.
 * Model     The wrapped backend stays the loop's np_backend, with its slab, its buffers and its
 *           counts. np_faulty_wrap only changes its table of verbs: the new table is the first
 *           member of the wrapper's own struct, which is how a verb finds it.
 * Faults    enum np_fault (np_fault.h).
 * Ownership An event that is kept back is in flight for everybody: cancel finds it, live_count
 *           counts it, its buffer is held. Results that were made up belong to operations that the
 *           wrapped backend has never seen, or has ended at our request.
 * Threads   As the wrapped backend.
 * Errors    np_faulty_wrap: 0 or -ENOMEM, with nothing changed.
 */
#ifndef NP_FAULTY_H
#define NP_FAULTY_H

#include "io/np_backend.h"
#include "testing/np_fault.h"

/* Puts the wrapper's table in the place of the backend's own: np_head(be)->ops from here on. No
 * operation is in flight yet. The wrapper goes with the backend. */
int np_faulty_wrap(struct np_backend *be, struct np_fault_plan *plan);

#endif
