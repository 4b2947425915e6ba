# The seam of loop/ready.pyx.


cdef class Ready:
    cdef str called     # what was called, for repr() of tasks


cdef Ready READY
cdef Ready ready_as(str called)
