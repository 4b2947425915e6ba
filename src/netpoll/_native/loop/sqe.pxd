# The seam of loop/sqe.pyx: who submits entries of his own to the loop's ring.

from libc.stdint cimport uint32_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport PyObject, np_udata


cdef int submit(Loop loop, const void *sqes, uint32_t count, PyObject **owners,
                np_udata *ops) except -1
cdef np_udata submit_one(Loop loop, const void *sqe, Completion owner) except? 0
