# The seam of http/ready.pyx.


cdef class Ready:
    pass


cdef Ready READY        # one for all
