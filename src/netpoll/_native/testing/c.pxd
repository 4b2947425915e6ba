# What a plan of faults is in C: csrc/testing.

from libc.stdint cimport uint32_t, uint64_t

from netpoll._native.c cimport np_backend


cdef extern from "testing/np_fault.h" nogil:
    enum:
        NP_FAULTS
        NP_FAULT_RATE_ONE
        NP_FAULT_SEND_ERROR

    struct np_fault_plan:
        pass

    np_fault_plan *np_fault_plan_open(uint64_t seed, const uint32_t *rates)
    void np_fault_plan_release(np_fault_plan *plan)
    void np_fault_plan_set_calm(np_fault_plan *plan, int is_calm)
    uint64_t np_fault_plan_count(const np_fault_plan *plan, int fault)
    const char *np_fault_name(int fault)


cdef extern from "testing/np_faulty.h" nogil:
    int np_faulty_wrap(np_backend *be, np_fault_plan *plan)
