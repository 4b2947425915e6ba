# cython: language_level=3, freethreading_compatible=True
"""Leases: received bytes in the place where they arrived.

A Lease owns holds on receive buffers (np_bufring.h), or on memory that bytes were copied to. The
holds end when it was released and nobody uses a buffer of it (a memoryview, a BytesIO) any more.
docs/leases.md says it in words.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netpoll._c cimport (
    NP_OWNER_BUF, NP_OWNER_HEAP, NP_OWNER_MASK, NP_OWNER_OBJECT, PyObject, Py_DECREF, Py_INCREF,
    np_buf, np_buf_hold, np_chunk, np_flow, np_inbox_wake, np_iov, np_iov_advance, np_iov_pop,
    np_owner_drop)
from netpoll._core cimport Loop


cdef const char *EMPTY = ""


cdef inline np_chunk *chunk_at(np_iov *iov, Py_ssize_t i) noexcept:
    return &iov.chunks[(iov.head + i) & (iov.cap - 1)]


cdef class Lender:
    """Who lends: a connection's account of its leases."""

    cdef int admit(self, Lease lease) except -1:
        """The lease is to outlive the handler: counts it. BufferError when it is one too many."""
        raise NotImplementedError

    cdef int relieve(self, Lease lease) noexcept:
        """A lease that was counted has ended."""
        return 0


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Lease:
    """Received bytes, in place: len(), bytes(), memoryview(), and pieces() without joining.

    It ends by release(), at the end of a `with` block, or by itself: at the end of the handler that
    it was given to, unless that handler called retain(). The memory goes back when it has ended and
    no memoryview of it is left.
    """

    def __init__(self):
        raise TypeError("a Lease comes from Connection.next(), peek() or until()")

    def __dealloc__(self):
        self.unlink()
        self.drop()

    cdef np_chunk *first(self) noexcept:
        return self.many if self.many is not NULL else &self.one

    cdef int take(self, np_flow *flow, Py_ssize_t size_bytes, bint consumes) except -1:
        """Holds each piece of the first size_bytes of flow; with `consumes`, in its stead."""
        cdef np_iov *iov = &flow.iov
        cdef size_t skip_bytes = iov.skip_bytes
        cdef Py_ssize_t left = size_bytes, n = 0, at = 0
        cdef np_chunk *chunk
        cdef np_chunk *target
        if size_bytes == 0:
            return 0
        chunk = chunk_at(iov, 0)
        if <size_t>size_bytes > chunk.len_bytes - skip_bytes:
            self.many = <np_chunk*>malloc(iov.count * sizeof(np_chunk))
            if self.many is NULL:
                raise MemoryError
        target = self.first()
        while left:
            chunk = chunk_at(iov, at)
            target[n].base = chunk.base + skip_bytes
            target[n].len_bytes = min(<size_t>left, chunk.len_bytes - skip_bytes)
            if consumes and target[n].len_bytes == chunk.len_bytes - skip_bytes:
                target[n].owner = chunk.owner
                np_iov_pop(iov)
            else:
                target[n].owner = hold_or_copy(chunk.owner, &target[n])
                if target[n].owner is NULL:
                    raise MemoryError
                if consumes:
                    np_iov_advance(iov, target[n].len_bytes, NULL, 0)
                else:
                    at += 1
            left -= target[n].len_bytes
            skip_bytes = 0
            n += 1
            self.count = n
        self.size_bytes = size_bytes
        return 0

    cdef int enlist(self, Lender lender) except -1:
        self.lender = lender
        self.link = &lender.leases
        self.next = lender.leases
        if self.next is not NULL:
            (<Lease>self.next).link = &self.next
        lender.leases = <void*>self
        return 0

    cdef int unlink(self) noexcept:
        if self.link is NULL:
            return 0
        self.link[0] = self.next
        if self.next is not NULL:
            (<Lease>self.next).link = self.link
        self.link = NULL
        self.next = NULL
        if self.is_counted:
            self.is_counted = False
            self.lender.relieve(self)
        self.lender = None
        return 0

    cdef Py_ssize_t shed(self) except -1:
        """Copies what is in receive buffers, unless somebody looks at it there. Bytes copied."""
        cdef np_chunk *chunks = self.first()
        cdef Py_ssize_t i, copied_bytes = 0
        cdef uint8_t *copy
        if self.exports:
            return 0
        for i in range(self.count):
            if (<uintptr_t>chunks[i].owner & NP_OWNER_MASK) == NP_OWNER_BUF:
                copy = <uint8_t*>malloc(chunks[i].len_bytes)
                if copy is NULL:
                    raise MemoryError
                memcpy(copy, chunks[i].base, chunks[i].len_bytes)
                np_owner_drop(chunks[i].owner)
                chunks[i].base = copy
                chunks[i].owner = copy + NP_OWNER_HEAP
                copied_bytes += chunks[i].len_bytes
        return copied_bytes

    cdef int drop(self) noexcept:
        """Lets go of the memory. Another thread's loop may sleep for want of it: it is woken."""
        cdef np_chunk *chunks = self.first()
        cdef void *reference
        cdef Py_ssize_t i
        for i in range(self.count):
            reference = np_owner_drop(chunks[i].owner)
            if reference is not NULL:
                Py_DECREF(<PyObject*>reference)
        self.count = 0
        free(self.many)
        self.many = NULL
        if self.thread_id and self.thread_id != PyThread_get_thread_ident() \
                and self.loop.inbox.wake_fd >= 0:
            np_inbox_wake(&self.loop.inbox)
        return 0

    cdef int check(self) except -1:
        if self.is_released:
            raise ValueError("this lease was released: its memory belongs to other bytes now. "
                             "Copy with bytes(lease) or keep it with lease.retain() in time")
        return 0

    cdef Py_ssize_t buffers(self) noexcept:
        """How many of its pieces keep a receive buffer."""
        cdef np_chunk *chunks = self.first()
        cdef Py_ssize_t i, n = 0
        for i in range(self.count):
            n += (<uintptr_t>chunks[i].owner & NP_OWNER_MASK) == NP_OWNER_BUF
        return n

    cdef int join(self) except -1:
        """Contiguous memory was asked for and there are several pieces: they are copied, once."""
        cdef uint8_t *copy = <uint8_t*>malloc(self.size_bytes)
        cdef Py_ssize_t i, at = 0
        if copy is NULL:
            raise MemoryError
        for i in range(self.count):
            memcpy(copy + at, self.many[i].base, self.many[i].len_bytes)
            at += self.many[i].len_bytes
        self.drop()
        self.one.base = copy
        self.one.len_bytes = self.size_bytes
        self.one.owner = copy + NP_OWNER_HEAP
        self.count = 1
        return 0

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.check()
        if flags & PyBUF_WRITABLE:
            raise BufferError("received bytes are read-only: copy them with bytearray(lease)")
        if self.count > 1:
            if self.exports:
                raise BufferError("its pieces are in use: release their memoryviews first")
            self.join()
        cdef void *base = <void*>self.one.base if self.count else <void*>EMPTY
        PyBuffer_FillInfo(view, self, base, self.size_bytes, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1
        if self.exports == 0 and self.is_released:
            self.drop()

    def __len__(self):
        return self.size_bytes

    def __bytes__(self):
        return self.tobytes()

    def tobytes(self):
        """A copy."""
        cdef np_chunk *chunks = self.first()
        cdef Py_ssize_t i, at = 0
        self.check()
        data = PyBytes_FromStringAndSize(NULL, self.size_bytes)
        for i in range(self.count):
            memcpy(PyBytes_AS_STRING(data) + at, chunks[i].base, chunks[i].len_bytes)
            at += chunks[i].len_bytes
        return data

    def __eq__(self, other):
        if isinstance(other, Lease):
            return self is other or self.tobytes() == other.tobytes()
        try:
            return self.tobytes() == memoryview(other)
        except TypeError:
            return NotImplemented

    __hash__ = None

    def __repr__(self):
        state = "released" if self.is_released else "retained" if self.is_retained else "lent"
        return f"<netpoll.Lease {self.size_bytes} bytes in {self.count} pieces, {state}>"

    @property
    def pieces_count(self):
        """In how many pieces of memory the bytes are; 1 when they are contiguous."""
        return self.count

    @property
    def released(self):
        return bool(self.is_released)

    def pieces(self):
        """The pieces as memoryviews, in order: nothing is joined or copied."""
        self.check()
        return [memoryview(Piece.__new__(Piece, self, i)) for i in range(self.count)]

    def retain(self):
        """Keeps the lease beyond its handler, until release(). Returns it.

        Retained bytes are bounded, see docs/leases.md: BufferError when this connection has
        retained too many already. ValueError when the lease has ended.
        """
        self.check()
        if not self.is_retained and self.lender is not None:
            self.lender.admit(self)
            self.is_retained = True
        return self

    def release(self):
        """Ends the lease. May be called again. Memoryviews of it stay valid until they end."""
        if not self.is_released:
            self.is_released = True
            self.unlink()
            if self.exports == 0:
                self.drop()

    def __enter__(self):
        self.check()
        return self

    def __exit__(self, *exc):
        self.release()


@cython.final
@cython.no_gc
cdef class Piece:
    """One piece of a lease, for a memoryview."""
    cdef Lease lease
    cdef Py_ssize_t index

    def __cinit__(self, Lease lease, Py_ssize_t index):
        self.lease = lease
        self.index = index

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef np_chunk *chunk = &self.lease.first()[self.index]
        if flags & PyBUF_WRITABLE:
            raise BufferError("received bytes are read-only")
        PyBuffer_FillInfo(view, self, <void*>chunk.base, chunk.len_bytes, 1, flags)
        self.lease.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.lease.exports -= 1
        if self.lease.exports == 0 and self.lease.is_released:
            self.lease.drop()


cdef void *hold_or_copy(void *owner, np_chunk *chunk) noexcept:
    """An owner for a part of a chunk; NULL without memory."""
    cdef uint8_t *copy
    if (<uintptr_t>owner & NP_OWNER_MASK) == NP_OWNER_BUF:
        np_buf_hold(<np_buf*>(<uintptr_t>owner - NP_OWNER_BUF))
        return owner
    if (<uintptr_t>owner & NP_OWNER_MASK) == NP_OWNER_OBJECT:  # decrypted bytes
        Py_INCREF(<PyObject*>owner)
        return owner
    copy = <uint8_t*>malloc(chunk.len_bytes)
    if copy is NULL:
        return NULL
    memcpy(copy, chunk.base, chunk.len_bytes)
    chunk.base = copy
    return copy + NP_OWNER_HEAP
