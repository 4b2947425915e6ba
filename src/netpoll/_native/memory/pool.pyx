# cython: language_level=3, freethreading_compatible=True
"""Memory to send from: pools of huge pages that the ring knows, and the buffers cut out of them.

Received memory is elsewhere (a loop's own buffers). The C half is np_pool.h.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer)
from libc.errno cimport EEXIST, ENOBUFS, ENOMEM, EMSGSIZE, ENOSPC, EOPNOTSUPP, EPERM
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, strerror

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_ARENA_HUGETLB_ONLY, NP_ARENA_LADDER, NP_ARENA_PLAIN_ONLY, NP_ATTACH_OFF, NP_ATTACH_ON,
    NP_POOL_CLASSES_MAX_COUNT, iovec, np_arena_kind_name, np_head, np_pool_base, np_pool_close,
    np_pool_drop, np_pool_get_stats, np_pool_open, np_pool_stats, np_pool_take, np_region_of)
from netpoll._native.seal cimport seal_types

import asyncio
import weakref

from netpoll.config import BufferConfig
from netpoll.errors import PoolExhaustedError

cdef dict ARENA_FLAGS = {  # the names are BufferConfig's
    "auto": NP_ARENA_LADDER,
    "require": NP_ARENA_HUGETLB_ONLY,
    "off": NP_ARENA_PLAIN_ONLY,
}

cdef dict REFUSALS = {
    EOPNOTSUPP: "this backend registers no memory (epoll, or zc_fixed is in features_off)",
    ENOSPC: "the ring has registered as many pieces of memory as it can",
    ENOMEM: "registered memory would exceed the limit of locked memory (RLIMIT_MEMLOCK): raise "
            "it with 'ulimit -l', LimitMEMLOCK= or CAP_IPC_LOCK, or make the pool smaller",
    EPERM: "the process has forked: the ring is the parent's",
}


cdef str refusal_text(int err):
    return REFUSALS.get(-err) or f"registering failed: {strerror(-err).decode()}"


# Blocks and buffers are never cleared by the collector: who has a view of one can rely on it.
@cython.no_gc_clear
@cython.freelist(64)
cdef class PoolBlock:
    def __dealloc__(self):
        if self.block:
            np_pool_drop(&self.pool.pool, self.block)


cdef class BufferPool:
    """Memory to send from: an arena of huge pages, cut into blocks of a few sizes.

    size_bytes: of the arena; rounded up to a multiple of the largest class.
    classes: the sizes of blocks in bytes, ascending powers of two.
    hugepages: "auto" takes reserved huge pages, else transparent ones, else plain pages; "require"
        insists on reserved ones (OSError ENOMEM where there are none); "off" takes plain pages.

    A pool that was attached to a loop is registered with its ring: zero-copy sends out of it spare
    the kernel looking up pages (io_uring_register_buffers(3)). Without (epoll, RLIMIT_MEMLOCK) all
    works the same, and stats()["not_registered"] says why.

    Any thread may reserve and release buffers; one pool may serve the loops of several threads. A
    single buffer belongs to one thread at a time. Raises ValueError for sizes that make no sense,
    MemoryError.
    """

    def __cinit__(self, *args, **kwargs):
        # Weak: a loop refers to its pools until it is closed.
        self.loops = weakref.WeakSet()
        self.refusals = weakref.WeakKeyDictionary()

    def __init__(self, size_bytes=BufferConfig.size_bytes, classes=BufferConfig.classes,
                 hugepages=BufferConfig.hugepages):
        cdef uint32_t sizes[NP_POOL_CLASSES_MAX_COUNT]
        cdef int err, flags
        cdef size_t size
        cdef uint32_t count = 0
        if self.is_open:
            raise RuntimeError("a BufferPool is made once")
        self.config = BufferConfig(size_bytes, tuple(classes), hugepages)
        for block_bytes in self.config.classes:
            sizes[count] = block_bytes
            count += 1
        flags = ARENA_FLAGS[hugepages]
        size = self.config.size_bytes
        if self.is_open:  # an iterator over the classes has called us
            raise RuntimeError("a BufferPool is made once")
        with nogil:
            err = np_pool_open(&self.pool, size, sizes, count, flags)
        if err == -ENOMEM and flags == NP_ARENA_HUGETLB_ONLY:
            raise OSError(ENOMEM, f"{size_bytes} bytes of reserved huge pages are not available: "
                                  "raise vm.nr_hugepages, or use hugepages='auto'")
        if err == -ENOMEM:
            raise MemoryError(f"a buffer pool of {size_bytes} bytes")
        if err < 0:
            raise ValueError(f"a buffer pool of {size_bytes} bytes in {count} classes: "
                             f"{strerror(-err).decode()}")
        self.is_open = True

    def __dealloc__(self):
        if self.is_open:
            np_pool_close(&self.pool)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        if not self.is_open:
            return "<netpoll.BufferPool closed>"
        return f"<netpoll.BufferPool {self.pool.size_bytes} bytes>"

    cdef int check_open(self) except -1:
        if not self.is_open:
            raise ValueError("the buffer pool is closed")
        return 0

    def reserve(self, Py_ssize_t size_bytes):
        """A Buffer of at least size_bytes, to be filled and sent.

        Raises PoolExhaustedError when no block is free: some come back when sends end. ValueError
        for a size below 1 or above the largest class.
        """
        cdef PoolBlock block
        cdef Buffer buffer
        cdef int err
        self.check_open()
        if size_bytes < 1:
            raise ValueError(f"a buffer has at least one byte, not {size_bytes}")
        block = PoolBlock.__new__(PoolBlock)
        block.pool = self
        err = np_pool_take(&self.pool, size_bytes, &block.block)
        if err == -EMSGSIZE:
            raise ValueError(f"{size_bytes} bytes are more than the largest class of the pool, "
                             f"{self.config.classes[-1]}: send them in pieces, or give the pool "
                             "a larger class")
        if err < 0:
            raise PoolExhaustedError(ENOBUFS, f"no block for {size_bytes} bytes is free in the "
                                              f"pool of {self.pool.size_bytes} bytes: wait for "
                                              "sends to end, or make it larger")
        buffer = Buffer.__new__(Buffer)
        buffer.block = block
        buffer.base = np_pool_base(&self.pool, block.block)
        buffer.capacity_bytes = size_bytes
        return buffer

    # ---- rings --------------------------------------------------------------------------------

    def attach(self, loop=None):
        """Registers the memory with a loop's ring, until the loop is closed or detach().

        loop: a netpoll loop, in its own thread or before it first runs; without it the running
            one. Returns whether the ring took it; stats()["not_registered"] says why not. Raises
        RuntimeError in another thread than the loop's, TypeError for another loop than netpoll's.
        """
        cdef Loop native
        cdef int err
        if loop is None:
            loop = asyncio.get_running_loop()
        if not isinstance(loop, Loop):
            raise TypeError(f"a netpoll loop is needed, not {type(loop).__name__}")
        native = <Loop>loop
        if native in self.loops:
            return native not in self.refusals
        self.check_open()
        native.check_open()
        err = native.ops.attach(native.be, self.pool.arena.base, self.pool.size_bytes, NP_ATTACH_ON)
        if err == -EEXIST:
            raise RuntimeError("attach() needs the loop's own thread once the loop has run")
        if err < 0:
            self.refusals[native] = refusal_text(err)
        self.loops.add(native)
        if native.buffer_pools is None:
            native.buffer_pools = []
        native.buffer_pools.append(self)
        return err == 0

    def detach(self, loop=None):
        """Takes the memory away from a loop's ring again. Sends that are under way are not hurt.

        Raises RuntimeError in another thread than the loop's. A loop that it was not attached to,
        or that is closed, is no error.
        """
        self.detach_native(asyncio.get_running_loop() if loop is None else loop)

    cdef int detach_native(self, Loop loop) except -1:
        cdef int err
        if loop not in self.loops:
            return 0
        if loop.be is not NULL and loop not in self.refusals:
            err = loop.ops.attach(loop.be, self.pool.arena.base, self.pool.size_bytes,
                                  NP_ATTACH_OFF)
            if err == -EEXIST:
                raise RuntimeError("the buffer pool is attached to a loop of another thread: "
                                   "detach it there, or close that loop first")
        if loop.buffer_pools is not None:
            loop.buffer_pools.remove(self)
        self._forget(loop)
        return 0

    def _forget(self, Loop loop):
        """The loop is closed, or has given the memory back."""
        self.loops.discard(loop)
        self.refusals.pop(loop, None)

    cdef bint is_registered(self, Loop loop) noexcept:
        cdef iovec whole
        whole.iov_base = self.pool.arena.base
        whole.iov_len = 1
        return loop.be is not NULL and np_region_of(np_head(loop.be), &whole, 1) >= 0

    # ---- the end, and counters ----------------------------------------------------------------

    def close(self):
        """Frees the memory. Raises BufferError while buffers are in use, RuntimeError while it is
        attached to a loop of another thread. A second close does nothing."""
        if not self.is_open:
            return
        self.check_unused()
        for loop in list(self.loops):
            self.detach_native(loop)
        last_stats = self.stats()
        if not self.is_open:
            return
        self.check_unused()  # once more: a finaliser may have reserved one meanwhile
        self.last_stats = last_stats
        self.is_open = False
        np_pool_close(&self.pool)

    cdef int check_unused(self) except -1:
        cdef np_pool_stats stats
        np_pool_get_stats(&self.pool, &stats)
        if stats.blocks_used_count:
            raise BufferError(f"{stats.blocks_used_count} buffers of the pool are in use")
        return 0

    def stats(self):
        """Counters of this pool, as a dict; after close() the last values.

        size_bytes, used_bytes, free_bytes: of the arena; what is neither used nor free is free for
        one class only. pages: "hugetlb", "thp" or "plain". buffers_count: in use, now. classes: by
        block size, {"used": blocks, "free": blocks cut already, "taken": since the start,
        "refused": reserves that found none}. registered: rings that know the memory;
        not_registered: why others that it was attached to do not. What was sent, and whether it was
        copied on its way, is counted by the loop and the server: their stats().
        """
        cdef np_pool_stats s
        cdef uint32_t i
        if not self.is_open:
            return dict(self.last_stats) if self.last_stats is not None else {}
        np_pool_get_stats(&self.pool, &s)
        chunk_bytes = self.config.classes[-1]
        classes = {}
        for i in range(s.classes_count):
            c = &s.classes[i]
            classes[c.block_bytes] = {
                "used": c.used_count,
                "free": c.chunks_count * (chunk_bytes // c.block_bytes) - c.used_count,
                "taken": c.taken_count,
                "refused": c.refused_count,
            }
        return {
            "size_bytes": s.size_bytes,
            "used_bytes": s.used_bytes,
            "free_bytes": s.free_chunk_bytes,
            "pages": np_arena_kind_name(s.arena_kind).decode(),
            "buffers_count": s.blocks_used_count,
            "classes": classes,
            "registered": sum(1 for loop in self.loops if self.is_registered(loop)),
            "not_registered": list(self.refusals.values()),
        }


@cython.no_gc_clear
@cython.freelist(64)
cdef class Buffer:
    """A block of a pool: filled by the program, then sent without a copy in user space.

        with pool.reserve(65536) as buffer:
            buffer.write(header)
            with memoryview(buffer) as view:
                size = file.readinto(view[len(header):])
            buffer.commit(len(header) + size)
            transport.write(buffer)

    Until commit() the buffer protocol gives writable memory of `capacity` bytes; from then on, or
    from when it is sent, read-only memory of the bytes committed. release(), or the end of `with`,
    gives the memory back once nothing sends out of it any more. Belongs to one thread at a time.
    """

    def __init__(self):
        raise TypeError("buffers come from BufferPool.reserve()")

    cdef int check_held(self) except -1:
        if self.block is None:
            raise ValueError("the buffer was released")
        return 0

    @property
    def capacity(self):
        """Bytes that can be written."""
        return self.capacity_bytes

    @property
    def released(self):
        return self.block is None

    def __len__(self):
        """The bytes committed; before that, the bytes written with write()."""
        return self.length_bytes if self.committed else self.written_bytes

    def __repr__(self):
        state = "released" if self.block is None else "committed" if self.committed else "open"
        return f"<netpoll.Buffer {state} {len(self)} of {self.capacity_bytes} bytes>"

    def __enter__(self):
        self.check_held()
        return self

    def __exit__(self, *exc_info):
        self.release()

    def write(self, data):
        """Appends bytes behind those written before; returns how many there are now.

        Raises ValueError when they do not fit, BufferError after commit().
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with cython.critical_section(self):
                self.check_held()
                if self.committed:
                    raise BufferError("the buffer is committed: its bytes may be on their way")
                if view.len > self.capacity_bytes - self.written_bytes:
                    raise ValueError(f"{view.len} bytes do not fit: {self.written_bytes} of "
                                     f"{self.capacity_bytes} are taken")
                memcpy(self.base + self.written_bytes, view.buf, view.len)
                self.written_bytes += view.len
        finally:
            PyBuffer_Release(&view)
        return self.written_bytes

    def commit(self, size_bytes=None):
        """The first size_bytes, or what write() has written, are complete: from now on read-only.

        Raises BufferError while a writable view is open or after an earlier commit, ValueError for
        more than the capacity.
        """
        cdef Py_ssize_t size = self.written_bytes if size_bytes is None else size_bytes
        with cython.critical_section(self):
            self.check_held()
            if self.committed:
                raise BufferError("the buffer is committed already")
            if not 0 <= size <= self.capacity_bytes:
                raise ValueError(f"size_bytes must be between 0 and {self.capacity_bytes}, "
                                 f"not {size}")
            if self.writers_count:
                raise BufferError("a writable view of the buffer is open: release it first")
            self.length_bytes = size
            self.committed = True

    cdef PoolBlock seal(self):
        if not self.committed:
            self.commit()
        self.check_held()
        return self.block

    def release(self):
        """Gives the memory back when nothing sends out of it any more; a second time does nothing.

        Raises BufferError while a view is open.
        """
        with cython.critical_section(self):
            if self.exports_count:
                raise BufferError(f"{self.exports_count} views of the buffer are open")
            self.block = None

    def __getbuffer__(self, Py_buffer *view, int flags):
        with cython.critical_section(self):
            self.check_held()
            if self.committed and flags & PyBUF_WRITABLE:
                raise BufferError("the buffer is committed: its bytes may be on their way")
            PyBuffer_FillInfo(view, self, self.base,
                              self.length_bytes if self.committed else self.capacity_bytes,
                              self.committed, flags)
            self.exports_count += 1
            self.writers_count += not view.readonly

    def __releasebuffer__(self, Py_buffer *view):
        with cython.critical_section(self):
            self.exports_count -= 1
            self.writers_count -= not view.readonly


seal_types(globals(), (BufferPool,))
