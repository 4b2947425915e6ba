# The bounds of the native code, each with its unit and its reason. Those of the C core stand in
# csrc/base/np_limits.h; measurements behind them in benchmarks/README.md and NEGATIVE.md.

cdef enum:
    # ---- the GIL ------------------------------------------------------------------------------
    # From this size on a system call gives the GIL away: giving it up and taking it back costs more
    # than a smaller one lasts.
    NOGIL_BYTES = 32 * 1024
    # Encrypting and decrypting likewise: 16 KiB of AES-GCM take about 4 us.
    TLS_NOGIL_BYTES = 16 * 1024
    # The same for datagrams, which cost by number.
    DATAGRAM_NOGIL_COUNT = 8

    # ---- the loop -----------------------------------------------------------------------------
    # Callbacks that may be due "now": what the clock cannot tell apart.
    TIMER_RESOLUTION_NS = 1
    # Out of descriptors: accepting is tried again after this, or when a connection has ended.
    ACCEPT_RETRY_DELAY_S = 1
    WATCH_RETRY_MS = 10  # of a descriptor that there was no memory to watch
    # A process that has more connections than others on the same listening socket waits for so long
    # until it takes another one. When nobody else has taken it by then, and again and again not, it
    # takes more at a time, up to so many: the others may be busy for long.
    SEAT_YIELD_NS = 1000 * 1000
    SEAT_BURST_MAX_COUNT = 64
    # Turns that close() gives the kernel to end what was cancelled.
    CLOSE_TURNS_MAX_COUNT = 1000
    # Threads that a loop wakes when it has let go of the GIL; it is one, except after a stall. More
    # are woken before that.
    AWAY_LOCKS_MAX_COUNT = 16
    # Small receives of sock_recv are copied once, off the stack: allocating what the caller asked
    # for and giving most of it back costs more, and scatters the heap.
    SOCK_SCRATCH_BYTES = 8192
    # A bulk receive of sock_recv below this was not one.
    SOCK_BULK_LEAVE_BYTES = 2048
    # Bytes objects for direct reads that a loop keeps, to be used again.
    SOCK_BULK_POOL_COUNT = 6
    # Of one file in one turn of sendfile. Without a bound one call goes on for as long as the
    # reader keeps up, and the loop's other connections wait for the whole file. This is a
    # millisecond over loopback, and 2 MiB took 2 to 4 % longer for the whole.
    SENDFILE_TURN_BYTES = 8 * 1024 * 1024

    # ---- transports ---------------------------------------------------------------------------
    # asyncio's high watermark of a transport's writes.
    HIGH_WATER_DEFAULT_BYTES = 64 * 1024
    # Pending bytes from which a write leaves at once instead of at the end of the turn.
    WRITE_NOW_BYTES = 32 * 1024
    # Pieces that one system call takes, and owners that one step lets go.
    GATHER_COUNT = 64
    # A receive of this size or more sends a connection to direct reads (bulk). Below it, the copy
    # out of the shared buffer costs less than the extra poll and call; see benchmarks/README.md.
    BULK_ENTER_BYTES = 16 * 1024
    # This many direct reads in a row, each below BULK_LEAVE_BYTES, bring it back to the ring.
    BULK_LEAVE_COUNT = 8
    BULK_LEAVE_BYTES = 4 * 1024
    # Direct reads start small enough to stay below glibc's mmap threshold (128 KiB) and in cache.
    BULK_READ_MIN_BYTES = 64 * 1024
    BULK_READ_MAX_BYTES = 256 * 1024
    # Direct reads of one connection per turn, so that a flood does not starve the others. What is
    # written meanwhile leaves afterwards in one call: at 1 MiB messages that is a fifth of the CPU.
    READ_BUDGET_BYTES = 1024 * 1024
    # A read of a StreamReader of at least this much receives for itself (Transport.pull).
    PULL_MIN_BYTES = 64 * 1024
    # Reads of a pipe go through the stack until one fills this; then straight into the bytes object
    # that the protocol gets, with room for a whole pipe (64 KiB) and below glibc's mmap threshold.
    PIPE_SCRATCH_BYTES = 16 * 1024
    PIPE_BULK_BYTES = 128 * 1024 - 64
    # asyncio warns of writes to a lost connection from this one on, and the count ends there.
    LOST_WRITES_LOGGED_COUNT = 5
    LOST_WRITES_MAX_COUNT = 0xffff

    # ---- datagrams ----------------------------------------------------------------------------
    # Datagrams of one socket per turn, so that a flood does not starve the others.
    DATAGRAM_BUDGET_COUNT = 256
    # A receive asks for no fewer, however large the last datagrams were.
    DATAGRAM_BURST_MIN_COUNT = 4
    # What a waiting datagram counts beside its bytes (a UDP header, as in asyncio since 3.13), so
    # that empty ones cannot wait without bound.
    DATAGRAM_HEADER_BYTES = 8
    # The size of the queue above which it gives its memory back when it is empty.
    DATAGRAM_OUT_KEPT_COUNT = 256

    # ---- TLS ----------------------------------------------------------------------------------
    # Plaintext of one record, to which small writes are put together; and what a record adds: 22
    # bytes with TLS 1.3, up to 85 with TLS 1.2 and CBC. More than that spills (np_bio.h), it is not
    # lost.
    TLS_RECORD_BYTES = 16 * 1024
    TLS_RECORD_OVERHEAD_BYTES = 96
    # Plaintext that is encrypted in one go: it stays in the cache until it is sent. A worker of the
    # server has one buffer for all of its connections, and takes more.
    TLS_BATCH_BYTES = 64 * 1024
    SECURE_BATCH_BYTES = 128 * 1024
    # What the portable engine asks for at once.
    TLS_READ_BYTES = 256 * 1024
    # No more is encrypted while the transport below holds this much; again from the low mark on.
    TLS_BELOW_HIGH_BYTES = 256 * 1024
    TLS_BELOW_LOW_BYTES = 64 * 1024
    # Owners of plaintext that one step of a server's connection lets go.
    SECURE_OWNERS_COUNT = 64

    # ---- the server ---------------------------------------------------------------------------
    # The bulk buffers: what one read takes at most, and how many may be held at once (by a peer
    # that does not take what was forwarded to it, by leases) before what is in them is copied out.
    BULK_BUF_BYTES = 256 * 1024
    BULK_BUF_COUNT = 4
    # A buffer with less room than this left is not read into any more.
    BULK_ROOM_MIN_BYTES = 64 * 1024
    # What a read leaves over is read into from the next cache line on.
    CACHE_LINE_BYTES = 64
    # What a handler wrote in bulk is sent at once from this size on.
    RUSH_MIN_BYTES = 8 * 1024
    # Unread rests up to this size are copied at once: a whole receive buffer would stay for them.
    REST_COPY_BYTES = 1024
    # Bytes of a file in one call, so that a fast peer does not hold the others up.
    FILE_BUDGET_BYTES = 1 << 20
    # Zero-copy sends of a connection whose memory the kernel still holds; they are counted in the
    # flags of its task. With so many it sends otherwise.
    SHIPMENTS_MAX_COUNT = 255

    # Hosts of peers, and own ends, that a worker has words for; with more it begins anew.
    ADDRESSES_KNOWN_MAX_COUNT = 1024

    # ---- HTTP ---------------------------------------------------------------------------------
    # Places of a body's data that one call finds: 1 KiB of stack, and a large receive of usual
    # chunks (4 KiB and more) at once.
    HTTP_SPANS_COUNT = 64
    # Pipelined requests of one connection in one go: what follows waits for the next turn. Receive
    # buffers hold thousands, and the other connections would wait for all of their answers. Clients
    # that pipeline at all send some dozens at once.
    HTTP_REQUESTS_TURN_COUNT = 64
    # A body of so many bytes is copied behind its head: one piece to send instead of two.
    HTTP_INLINE_BYTES = 2048
    # What a peer has to end its side after an answer that ends the connection with bytes unread: so
    # long without a byte, and in all. Who sends a body reads the answer behind it.
    HTTP_LINGER_S = 2
    HTTP_LINGER_MAX_S = 30
    # Unread bytes of a body that nobody waits for: above, the peer is not read from.
    HTTP_UNREAD_MAX_BYTES = 64 * 1024
    # Unsent bytes of an answer: above, an application that awaits its sending waits.
    HTTP_PENDING_MAX_BYTES = 64 * 1024
    # Jobs of a pool of threads that were taken, before their places are given back: seldom enough
    # that moving the rest costs nothing.
    HTTP_JOBS_TAKEN_MAX_COUNT = 1024
    # Groups of exceptions in groups that are looked into for the end of a connection.
    HTTP_ERROR_GROUPS_MAX_COUNT = 100
    # Files up to this size are read and kept; larger ones leave by sendfile(2), which has nothing
    # to copy. At 50 KiB the answer out of memory costs a third less CPU.
    HTTP_FILE_MAX_BYTES = 128 * 1024
    # All that is kept of files, in each worker.
    HTTP_FILES_MAX_BYTES = 16 * 1024 * 1024
    # A file that has changed so lately may change again without another time of change: clocks of
    # file systems are coarse. Its content is not kept.
    HTTP_FILE_YOUNG_NS = 2000000000
    # Messages of a WebSocket that wait to be received, and their length: from here on its peer is
    # not read from. Small ones come many at once; of large ones the next is read with the last.
    WEBSOCKET_WAITING_MAX_COUNT = 64
    WEBSOCKET_WAITING_MAX_BYTES = 64 * 1024
    # Smaller parts of a message are joined as they come: an object has 33 bytes of its own.
    WEBSOCKET_PART_MIN_BYTES = 1024
    # What a peer has to answer our close frame.
    WEBSOCKET_CLOSE_S = 10
    # Lines of the access log that wait to be written, once a second: from here on at once.
    HTTP_LINES_BYTES = 64 * 1024
    # A request's id from outside that is longer is replaced.
    HTTP_REQUEST_ID_MAX_BYTES = 128
    # Values of Content-Type of which it is remembered whether to compress them: an application has
    # a dozen.
    HTTP_MEDIA_TYPES_MAX_COUNT = 256
    # What requests are counted by: the method with the status, 0 for those that ended without an
    # answer; how long they took, but for the longest. What comes after so many pairs of a method
    # and a status is counted together: an application has a dozen.
    METER_STATUSES_COUNT = 600
    METER_SERIES_COUNT = 64
    METER_BUCKETS_COUNT = 16

    # ---- the scheduler ------------------------------------------------------------------------
    # Tasks between two looks at the clock.
    SLICE_COUNT = 256
    # Tasks of one turn of a worker with a loop, and their time: how late the ring's events may be
    # because of tasks. A task is not interrupted, so the last one may take longer.
    TURN_TASKS_COUNT = 64
    TURN_TASKS_NS = 200000
    # How long the ring waits at most while the scheduler ends.
    ENDING_WAIT_NS = 5000000
    # Tasks along one chain of awaits that inherit a priority.
    INHERIT_MAX_COUNT = 64
