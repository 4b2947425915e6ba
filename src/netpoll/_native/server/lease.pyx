# cython: language_level=3, freethreading_compatible=True
"""Leases: received bytes in the place where they arrived.

A Lease owns holds on receive buffers (np_bufring.h), or on memory that bytes were copied to. The
holds end when it was released and nobody uses a buffer of it (a memoryview, a BytesIO) any more.
docs/leases.md says it in words.

Any thread may release. Without a GIL the loop's critical section guards what that touches: the
lease, its lender's list and counters, and whether the loop can still be woken.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EDQUOT, ENOMEM
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_CONN_FULL, NP_OWNER_BUF, NP_OWNER_HEAP, NP_OWNER_MASK, NP_OWNER_OBJECT, PyObject, Py_DECREF,
    Py_INCREF, np_buf, np_buf_hold, np_chunk, np_flow, np_flow_push, np_inbox_wake, np_iov,
    np_iov_advance, np_iov_pop, np_owner_drop)
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport Face


cdef const char *EMPTY = ""


cdef inline np_chunk *chunk_at(np_iov *iov, Py_ssize_t i) noexcept:
    return &iov.chunks[(iov.head + i) & (iov.cap - 1)]


cdef class Lender(Face):
    """Who lends: a connection's account of its leases."""

    cdef int admit(self, Lease lease) noexcept:
        """The lease is to outlive the handler: counts it. 0, or -errno when it is one too many.

        Retained bytes pause reading above the limit, and are refused above twice of it. Called, as
        relieve is, in the critical section of the lease's loop.
        """
        if lease.is_counted:
            return 0
        if self.retained_bytes + lease.size_bytes > 2 * self.host.retained_max_bytes:
            return -EDQUOT
        cdef int err = self.share(lease)
        if err < 0:
            return err
        return self.count_lease(lease)

    cdef int share(self, Lease lease) noexcept:
        """The lease's memory is about to be given out. 0, or -ENOMEM.

        Never the ring's last buffer: half of it stays for receiving, whatever is retained or
        looked at. What would be too much is copied before anybody looks at it.
        """
        cdef Py_ssize_t held = 0 if lease.counted_chunks else lease.buffers()
        if held and 2 * (self.host.leased_chunks + held) > self.host.buffers_count:
            held = lease.shed()
            if held < 0:
                return -ENOMEM
            self.host.user_copied_bytes += held
            held = 0
        lease.counted_chunks += held
        self.host.leased_chunks += held
        return 0

    cdef int outlives(self, Lease lease) noexcept:
        """The lease has ended but is in use, so it cannot be refused any more: counts it. 0, or
        -errno when it is one too many."""
        self.count_lease(lease)
        return -EDQUOT if self.retained_bytes > 2 * self.host.retained_max_bytes else 0

    cdef int count_lease(self, Lease lease) noexcept:
        self.retained_bytes += lease.size_bytes
        lease.is_counted = True
        if self.retained_bytes > self.host.retained_max_bytes and self.conn is not NULL:
            self.conn.flags |= NP_CONN_FULL
        return 0

    cdef object refusal(self, int err, Py_ssize_t refused_bytes):
        """The exception for what admit said, of so many bytes."""
        if self.retained_bytes + refused_bytes > 2 * self.host.retained_max_bytes:
            return BufferError(
                f"this connection has {self.retained_bytes + refused_bytes} bytes in leases that "
                "were not released, or that memoryviews still use, and retained_max_bytes is "
                f"{self.host.retained_max_bytes}: release() them, or keep copies")
        return MemoryError()

    cdef int end_leases(self, Loop loop, bint suspended) except -1:
        """What the handler that has returned did not retain ends, and counts as retained while
        memoryviews use it; or, it is suspended, is counted: BufferError when more is kept than may
        be.

        A lease that another thread is freeing waits in end(), for us: it may be looked at, but not
        referred to any more. Nothing is called that could let others in.
        """
        cdef void *at
        cdef void *following
        cdef Py_ssize_t refused_bytes = 0
        cdef int err, refused = 0
        with cython.critical_section(loop):
            at = self.leases
            while at is not NULL:
                following = (<Lease>at).next
                if suspended:
                    err = self.admit(<Lease>at)
                    if err:
                        refused = err
                        refused_bytes += (<Lease>at).size_bytes
                elif not (<Lease>at).is_retained:
                    err = (<Lease>at).end_listed()
                    if err:
                        refused = err
                at = following
        if refused:
            raise self.refusal(refused, refused_bytes)
        return 0

    cdef int relieve(self, Lease lease) noexcept:
        """A lease that was counted has ended: takes it off the account."""
        if self.host is not None:  # else the collector has taken us and our host apart
            self.host.leased_chunks -= lease.counted_chunks
        lease.counted_chunks = 0
        if lease.is_counted:
            lease.is_counted = False
            self.retained_bytes -= lease.size_bytes
        return 0

    cdef int relieved(self) noexcept:
        """After that: what was waiting for it may go on."""
        if self.host is None or self.conn is NULL or not self.conn.flags & NP_CONN_FULL:
            return 0
        try:
            if PyThread_get_thread_ident() == self.host.thread_id:
                self._relieved()
            else:
                self.host.loop.call_soon_threadsafe(self._relieved)
        except Exception:
            pass  # the loop is closed: nothing is received any more
        return 0

    def _relieved(self):
        if self.conn is not NULL:
            self.host.consumed(self.conn)


# The collector must see leases: a retained one may be kept by what its lender refers to
# (Connection.state). It never clears them: end() needs lender and loop.
@cython.final
@cython.no_gc_clear
@cython.freelist(64)
cdef class Lease:
    """Received bytes, in place: len(), bytes(), memoryview(), and pieces() without joining.

    It ends by release(), at the end of a `with` block, or by itself: at the end of the handler that
    it was given to, unless that handler called retain(). The memory goes back when it has ended and
    no memoryview of it is left.
    """

    def __init__(self):
        raise TypeError("a Lease comes from Connection.lease(), peek_lease() or lease_until()")

    def __dealloc__(self):
        self.end()

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
        with cython.critical_section(self.loop):
            self.lender = lender
            self.link = &lender.leases
            self.next = lender.leases
            if self.next is not NULL:
                (<Lease>self.next).link = &self.next
            lender.leases = <void*>self
        return 0

    cdef Lender delist(self):
        """Out of the lender's list, and of its account: the lender, if it was in that."""
        cdef Lender lender = self.lender
        self.link[0] = self.next
        if self.next is not NULL:
            (<Lease>self.next).link = self.link
        self.link = NULL
        self.next = NULL
        self.lender = None
        if not self.is_counted and not self.counted_chunks:
            return None
        lender.relieve(self)
        return lender

    cdef int end(self) except -1:
        """Released, or nobody refers to it any more. Again: nothing happens.

        While memoryviews use it, it stays in its lender's list and account.
        """
        cdef Lender lender = None
        with cython.critical_section(self.loop):
            self.is_released = True
            if self.exports == 0:
                if self.link is not NULL:
                    lender = self.delist()
                self.drop()
        if lender is not None:
            lender.relieved()  # it may call Python: not while the loop is locked
        return 0

    cdef int end_listed(self) noexcept:
        """end(), for who has the lock and goes through the list. 0, or -errno when it is in use and
        one too many."""
        self.is_released = True
        if self.exports:
            return 0 if self.is_counted else self.lender.outlives(self)
        self.delist()
        self.drop()
        return 0

    cdef Py_ssize_t shed(self) noexcept:
        """Copies what is in receive buffers, unless somebody looks at it there. The number of
        bytes, or -1: no memory."""
        cdef np_chunk *chunks = self.first()
        cdef Py_ssize_t i, copied_bytes = 0
        cdef uint8_t *copy
        if self.exports:
            return 0
        for i in range(self.count):
            if (<uintptr_t>chunks[i].owner & NP_OWNER_MASK) == NP_OWNER_BUF:
                copy = <uint8_t*>malloc(chunks[i].len_bytes)
                if copy is NULL:
                    return -1
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
        cdef Py_ssize_t i, count = self.count
        self.count = 0
        for i in range(count):
            reference = np_owner_drop(chunks[i].owner)
            if reference is not NULL:
                Py_DECREF(<PyObject*>reference)
        free(self.many)
        self.many = NULL
        if count and self.thread_id != PyThread_get_thread_ident() \
                and self.loop.inbox.wake_fd >= 0:
            np_inbox_wake(&self.loop.inbox)
        return 0

    cdef Py_ssize_t settle(self, Loop sender) except -1:
        """Before it is sent by that loop. Returns how many bytes were copied: another loop must get
        its buffers back without waiting for the sender."""
        cdef Py_ssize_t copied_bytes = 0
        self.check()
        if self.exports:
            raise BufferError("release the memoryviews of a lease before it is sent")
        if self.loop is not sender:
            copied_bytes = self.shed()
            if copied_bytes < 0:
                raise MemoryError
        return copied_bytes

    cdef int move_to(self, np_flow *flow) except -1:
        """Its pieces, with their holds, are the flow's now; the lease ends with what is left."""
        cdef np_chunk *chunks = self.first()
        cdef Py_ssize_t i
        try:
            for i in range(self.count):
                if np_flow_push(flow, chunks[i].owner, chunks[i].base, chunks[i].len_bytes) < 0:
                    raise MemoryError
                chunks[i].owner = NULL
        finally:
            self.is_released = True
            self.drop()
        return 0

    cdef int check(self) except -1:
        if self.is_released:
            raise ValueError("this lease was released: its memory belongs to other bytes now. "
                             "Copy with bytes(lease) or keep it with lease.retain() in time")
        return 0

    cdef Py_ssize_t buffers(self) noexcept:
        """How many receive buffers it keeps."""
        cdef np_chunk *chunks = self.first()
        cdef void *last = NULL
        cdef Py_ssize_t i, n = 0
        for i in range(self.count):
            if (<uintptr_t>chunks[i].owner & NP_OWNER_MASK) == NP_OWNER_BUF:
                n += chunks[i].owner is not last  # pieces of one buffer come in a row
                last = chunks[i].owner
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

    cdef const uint8_t *at(self, Py_ssize_t offset, Py_ssize_t size) except NULL:
        """Where `size` bytes from `offset` on are now: they may have been joined, or copied out of
        the ring, since somebody looked last. Of one piece, or joined here."""
        cdef np_chunk *chunk = self.first()
        cdef Py_ssize_t left = self.count, skip = offset
        self.check()
        while left and skip >= <Py_ssize_t>chunk.len_bytes:
            skip -= chunk.len_bytes
            chunk += 1
            left -= 1
        if left and size <= <Py_ssize_t>chunk.len_bytes - skip:
            return chunk.base + skip
        if size == 0:
            return <const uint8_t*>EMPTY
        if self.exports:
            raise BufferError("pieces of this lease are in use: release their memoryviews first")
        self.join()
        return self.one.base + offset

    cdef Py_ssize_t extent(self, Py_ssize_t offset) except -1:
        """How many bytes lie together from `offset` on."""
        cdef np_chunk *chunk
        with cython.critical_section(self.loop):
            self.check()
            chunk = self.first()
            while offset >= <Py_ssize_t>chunk.len_bytes:
                offset -= chunk.len_bytes
                chunk += 1
            return chunk.len_bytes - offset

    cdef int export(self, object exporter, Py_buffer *view, int flags, Py_ssize_t offset,
                    Py_ssize_t size) except -1:
        """What the buffer protocol gives, for as long as `exports` counts it."""
        if flags & PyBUF_WRITABLE:
            raise BufferError("received bytes are read-only: copy them with bytearray(lease)")
        with cython.critical_section(self.loop):
            self.at(offset, size)  # joined, if need be
            if self.exports == 0 and self.lender is not None and self.lender.share(self) < 0:
                raise MemoryError
            PyBuffer_FillInfo(view, exporter, <void*>self.at(offset, size), size, 1, flags)
            self.exports += 1
        return 0

    cdef int end_export(self) except -1:
        cdef Lender lender = None
        with cython.critical_section(self.loop):
            self.exports -= 1
            if self.exports == 0 and self.is_released:
                if self.link is not NULL:
                    lender = self.delist()
                self.drop()
        if lender is not None:
            lender.relieved()
        return 0

    def __getbuffer__(self, Py_buffer *view, int flags):
        self.export(self, view, flags, 0, self.size_bytes)

    def __releasebuffer__(self, Py_buffer *view):
        self.end_export()

    def __len__(self):
        return self.size_bytes

    def __bytes__(self):
        return self.tobytes()

    def tobytes(self):
        """A copy."""
        cdef np_chunk *chunks
        cdef Py_ssize_t i, at = 0
        data = PyBytes_FromStringAndSize(NULL, self.size_bytes)
        with cython.critical_section(self.loop):
            self.check()
            chunks = self.first()
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
        cdef Py_ssize_t size, offset = 0
        cdef list pieces = []
        self.check()
        while offset < self.size_bytes:
            size = self.extent(offset)
            pieces.append(memoryview(make_piece(self, offset, size)))
            offset += size
        return pieces

    def retain(self):
        """Keeps the lease beyond its handler, until release(). Returns it.

        Retained bytes are bounded, see docs/leases.md: BufferError when this connection has
        retained too many already. ValueError when the lease has ended.
        """
        cdef int err = 0
        cdef Lender lender
        with cython.critical_section(self.loop):
            self.check()
            lender = self.lender
            if not self.is_retained and lender is not None:
                err = lender.admit(self)
                self.is_retained = err == 0
        if err:
            raise lender.refusal(err, self.size_bytes)
        return self

    def release(self):
        """Ends the lease. May be called again. Memoryviews of it stay valid until they end."""
        self.end()

    def __enter__(self):
        self.check()
        return self

    def __exit__(self, *exc):
        self.release()


@cython.final
@cython.no_gc_clear
cdef class Piece:
    """One piece of a lease, for a memoryview: asks the lease at each export where it is by then."""
    cdef Lease lease
    cdef Py_ssize_t offset, size_bytes

    def __init__(self):
        raise TypeError("the pieces of a lease come from its pieces()")

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.lease is None:
            raise BufferError("this piece belongs to no lease")
        self.lease.export(self, view, flags, self.offset, self.size_bytes)

    def __releasebuffer__(self, Py_buffer *view):
        self.lease.end_export()


cdef Piece make_piece(Lease lease, Py_ssize_t offset, Py_ssize_t size):
    cdef Piece piece = Piece.__new__(Piece)
    piece.lease = lease
    piece.offset = offset
    piece.size_bytes = size
    return piece


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


seal_types(globals())
