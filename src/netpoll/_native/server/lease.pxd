# The seam of server/lease.pyx.

from libc.stdint cimport uint8_t, uint64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport np_chunk, np_flow
from netpoll._native.server.host cimport Face


cdef class Lender(Face):
    cdef void *leases           # the newest of those that have not ended

    cdef int admit(self, Lease lease) noexcept
    cdef object refusal(self, int err, Py_ssize_t refused_bytes)
    cdef int end_leases(self, Loop loop, bint suspended) except -1
    cdef int share(self, Lease lease) noexcept
    cdef int outlives(self, Lease lease) noexcept
    cdef int count_lease(self, Lease lease) noexcept
    cdef int relieve(self, Lease lease) noexcept
    cdef int relieved(self) noexcept


cdef class Lease:
    cdef Loop loop              # whose buffers these are
    cdef uint64_t thread_id     # of the thread that runs it
    cdef np_chunk one           # the only piece, or
    cdef np_chunk *many         # all of them (malloc), when there are several
    cdef Py_ssize_t count, size_bytes
    cdef Py_ssize_t exports     # buffers of it that are in use
    cdef bint is_released, is_retained, is_counted
    cdef Py_ssize_t counted_chunks
    # The lender's list. `link` is the word that points here.
    cdef Lender lender
    cdef void **link
    cdef void *next

    cdef np_chunk *first(self) noexcept
    cdef int take(self, np_flow *flow, Py_ssize_t size_bytes, bint consumes) except -1
    cdef int enlist(self, Lender lender) except -1
    cdef Lender delist(self)
    cdef int end_listed(self) noexcept
    cdef Py_ssize_t settle(self, Loop sender) except -1
    cdef int move_to(self, np_flow *flow) except -1
    cdef int drop(self) noexcept
    cdef Py_ssize_t shed(self) noexcept
    cdef int end(self) except -1
    cdef const uint8_t *at(self, Py_ssize_t offset, Py_ssize_t size) except NULL
    cdef Py_ssize_t extent(self, Py_ssize_t offset) except -1
    cdef int export(self, object exporter, Py_buffer *view, int flags, Py_ssize_t offset,
                    Py_ssize_t size) except -1
    cdef int end_export(self) except -1
    cdef Py_ssize_t buffers(self) noexcept
    cdef int join(self) except -1
    cdef int check(self) except -1
