# cython: language_level=3, freethreading_compatible=True
"""What a loop keeps beside its operations: who owns which fd, hints, objects for bulk receives."""

cimport cython
import os

from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.fcntl cimport F_GETFD, fcntl

from netpoll._native.c cimport (
    NP_CAN_REUSE_BYTES, PyBytes_New, PyObject, Py_INCREF, Py_REFCNT, Py_XDECREF, np_bytes_renew)
from netpoll._native.handle cimport HandleOwner
from netpoll._native.limits cimport SOCK_BULK_POOL_COUNT
from netpoll._native.seal cimport seal_types


cdef class FdTables(HandleOwner):
    def __dealloc__(self):
        self.drop_bulk()
        free(self.fd_owners)
        free(self.hints)

    cdef int own_fd(self, int fd, object owner) except -1:
        with cython.critical_section(self):
            if <uint32_t>fd >= self.fd_owners_cap:
                self._grow_fd_owners(fd)
            if self.fd_owners[fd] is NULL:
                self.transports_count += 1
            self.fd_owners[fd] = <PyObject*>owner
        return 0

    cdef int _grow_fd_owners(self, int fd) except -1:
        cdef uint32_t cap = self.fd_owners_cap or 64
        cdef PyObject **owners
        os.fstat(fd)  # OSError for what is no fd: a table as long as its number is not wanted
        while cap <= <uint32_t>fd:
            cap *= 2
        owners = <PyObject**>realloc(self.fd_owners, cap * sizeof(PyObject*))
        if owners is NULL:
            raise MemoryError
        memset(owners + self.fd_owners_cap, 0, (cap - self.fd_owners_cap) * sizeof(PyObject*))
        self.fd_owners = owners
        self.fd_owners_cap = cap
        return 0

    # A transport that was forgotten unclosed disowns its fd in whatever thread collects it.

    cdef int disown_fd(self, int fd, object owner) except -1:
        with cython.critical_section(self):
            if 0 <= fd < <int>self.fd_owners_cap and self.fd_owners[fd] is <PyObject*>owner:
                self.fd_owners[fd] = NULL
                self.transports_count -= 1
        return 0

    cdef object fd_owner(self, int fd):
        owner = None
        with cython.critical_section(self):
            if 0 <= fd < <int>self.fd_owners_cap and self.fd_owners[fd] is not NULL:
                owner = <object>self.fd_owners[fd]
        return owner

    cdef PyObject *take_bulk(self, Py_ssize_t size) except NULL:
        """A bytes object of `size` bytes to receive into; the caller gets a new reference.

        Fresh objects of this size would make glibc grow and trim the heap for each of them, and
        the kernel clear pages for each: at 1 MiB messages, half of all CPU. So the last few are
        kept, and one that nobody else refers to any more is used again.
        """
        cdef BulkSlot *slot
        cdef int i
        if NP_CAN_REUSE_BYTES:
            for i in range(SOCK_BULK_POOL_COUNT):
                slot = &self.bulk_pool[i]
                if slot.size == size and Py_REFCNT(slot.data) == 1:
                    np_bytes_renew(slot.data, size)
                    Py_INCREF(slot.data)
                    return slot.data
        cdef PyObject *data = PyBytes_New(NULL, size)
        if NP_CAN_REUSE_BYTES:
            slot = &self.bulk_pool[self.bulk_next]
            self.bulk_next = (self.bulk_next + 1) % SOCK_BULK_POOL_COUNT
            Py_XDECREF(slot.data)
            slot.data = data
            slot.size = size
            Py_INCREF(data)
        return data

    cdef int drop_bulk(self) except -1:
        cdef int i
        for i in range(SOCK_BULK_POOL_COUNT):
            Py_XDECREF(self.bulk_pool[i].data)
            self.bulk_pool[i].data = NULL
            self.bulk_pool[i].size = 0
        return 0

    cdef uint8_t *fd_hints(self, int fd) noexcept:
        """One byte per fd for the socket calls; NULL without memory. Stale ones do no harm."""
        cdef uint8_t *hints
        cdef uint32_t cap
        if <uint32_t>fd >= self.hints_cap:
            if fcntl(fd, F_GETFD) < 0:
                return NULL
            cap = self.hints_cap or 64
            while cap <= <uint32_t>fd:
                cap *= 2
            hints = <uint8_t*>realloc(self.hints, cap)
            if hints is NULL:
                return NULL
            memset(hints + self.hints_cap, 0, cap - self.hints_cap)
            self.hints = hints
            self.hints_cap = cap
        return self.hints + fd

    def _fd_transport(self, int fd):
        """The open transport that owns fd, or None."""
        return self.fd_owner(fd)

    def _fd_transports(self):
        """All open transports."""
        cdef uint32_t i
        cdef list found = []
        with cython.critical_section(self):
            for i in range(self.fd_owners_cap):
                if self.fd_owners[i] is not NULL:
                    found.append(<object>self.fd_owners[i])
        return found


seal_types(globals())
