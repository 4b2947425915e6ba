# cython: language_level=3, freethreading_compatible=True
"""The backend of bad days (csrc/testing/np_faulty.h) for the loops of a test."""

from libc.stdint cimport uint32_t, uint64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport np_head
from netpoll._native.seal cimport seal_types
from netpoll._native.testing.c cimport (
    NP_FAULTS, NP_FAULT_RATE_ONE, NP_FAULT_SEND_ERROR, np_fault_name, np_fault_plan,
    np_fault_plan_count, np_fault_plan_open, np_fault_plan_release, np_fault_plan_set_calm,
    np_faulty_wrap)

# The first cost a program time at most; of the second it is told.
QUIET_KINDS = tuple(np_fault_name(i).decode() for i in range(NP_FAULT_SEND_ERROR))
TOLD_KINDS = tuple(np_fault_name(i).decode() for i in range(NP_FAULT_SEND_ERROR, NP_FAULTS))
KINDS = QUIET_KINDS + TOLD_KINDS


cdef class FaultPlan:
    """What is to happen how often. rates: by kind, 0 to 1; kinds that are left out: never."""
    cdef np_fault_plan *plan

    def __cinit__(self, uint64_t seed, dict rates not None):
        cdef uint32_t words[NP_FAULTS]
        cdef int i
        unknown = set(rates).difference(KINDS)
        if unknown:
            raise ValueError(f"unknown kinds of faults: {', '.join(sorted(map(str, unknown)))}; "
                             f"there are {', '.join(KINDS)}")
        for i, kind in enumerate(KINDS):
            rate = float(rates.get(kind, 0.0))
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"the rate of {kind} must be from 0 to 1, not {rate}")
            words[i] = <uint32_t>(rate * NP_FAULT_RATE_ONE)
        self.plan = np_fault_plan_open(seed, words)
        if self.plan is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.plan is not NULL:
            np_fault_plan_release(self.plan)

    cdef np_fault_plan *made(self) except NULL:
        """Not there: in the finaliser of a subclass, when making it has failed."""
        if self.plan is NULL:
            raise RuntimeError("this plan could not be made")
        return self.plan

    def wrap(self, Loop loop not None):
        """Faults happen to this loop from now on. It is new: nothing is in flight on it."""
        if loop.be is NULL:
            raise RuntimeError("Event loop is closed")
        if np_head(loop.be).slab.live_count:
            raise RuntimeError("operations are in flight on this loop: faults begin with a new one")
        if np_faulty_wrap(loop.be, self.made()) < 0:
            raise MemoryError
        loop.ops = np_head(loop.be).ops

    def set_calm(self, bint is_calm):
        """Nothing happens any more, or does again."""
        np_fault_plan_set_calm(self.made(), is_calm)

    def counts(self):
        """What has happened so far, by kind; kinds of which nothing has happened are left out."""
        cdef np_fault_plan *plan = self.made()
        cdef int i
        found = {KINDS[i]: np_fault_plan_count(plan, i) for i in range(NP_FAULTS)}
        return {kind: count for kind, count in found.items() if count}


seal_types(globals(), (FaultPlan,))
