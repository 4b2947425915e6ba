# The seam of _native/fd_table.pyx: what a loop remembers by fd, and the objects it receives into.

from libc.stdint cimport uint8_t, uint32_t

from netpoll._native.c cimport PyObject
from netpoll._native.handle cimport HandleOwner
from netpoll._native.limits cimport SOCK_BULK_POOL_COUNT


cdef struct BulkSlot:
    PyObject *data          # a bytes object, or NULL
    Py_ssize_t size         # what was allocated for it, bytes


cdef class FdTables(HandleOwner):
    # Transports by fd (borrowed): who owns this number.
    cdef PyObject **fd_owners
    cdef uint32_t fd_owners_cap
    # Objects for direct reads, kept to be used again: see transport/stream.pyx.
    cdef BulkSlot bulk_pool[SOCK_BULK_POOL_COUNT]
    cdef uint32_t bulk_next, bulk_users_count
    cdef uint8_t *hints         # by fd, what the socket calls remember of it
    cdef uint32_t hints_cap
    cdef uint32_t transports_count

    cdef int _grow_fd_owners(self, int fd) except -1
    cdef int own_fd(self, int fd, object owner) except -1
    cdef int disown_fd(self, int fd, object owner) except -1
    cdef object fd_owner(self, int fd)
    cdef PyObject *take_bulk(self, Py_ssize_t size) except NULL
    cdef int drop_bulk(self) except -1
    cdef uint8_t *fd_hints(self, int fd) noexcept
