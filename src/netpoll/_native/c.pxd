# The C core, as Cython sees it: declarations, no logic. What only one room calls is declared there.
# The headers in csrc/ are the manual.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "errno.h" nogil:
    enum:
        ECANCELED

cdef extern from "base/np_limits.h" nogil:
    enum:
        NP_ZC_REGISTERED_MIN_BYTES
        NP_HARVEST_MAX_EVENTS
        NP_IOV_MAX
        NP_POOL_CLASSES_MAX_COUNT
    const int64_t NP_WAIT_MAX_NS

cdef extern from "base/np_life.h" nogil:
    enum:
        NP_CLOSING
        NP_LOST
        NP_GONE
        NP_LIFE_BITS
    unsigned np_life(unsigned state)

cdef extern from "io/np_udata.h" nogil:
    ctypedef uint64_t np_udata

cdef extern from "io/np_event.h" nogil:
    enum:
        NP_COOKIE_STRUCT
        NP_EV_MORE
        NP_EV_NONEMPTY
        NP_EV_NOTIF
        NP_EV_NO_ZC

    struct np_buf:
        pass

    struct np_event:
        void *owner
        uint8_t *data
        np_buf *buf
        uint64_t cqe_flags
        np_udata op
        int32_t res
        uint8_t kind, flags

    bint np_is_again(ptrdiff_t res)

cdef extern from "io/np_op.h" nogil:
    enum:
        NP_OP_ACCEPT
        NP_OP_RECV
        NP_OP_SEND
        NP_OP_POLL
        NP_FREE
        NP_OP_CHUNK_SLOTS
        NP_POLL_ASIDE
        NP_POLL_KEEP
        NP_POLL_LEVEL

    struct np_op:
        void *owner
        size_t len_bytes
        uint32_t poll_mask
        uint8_t state

    struct np_op_slab:
        uint32_t live_count
        uint32_t chunks_count

    np_op *np_op_alloc(np_op_slab *slab, uint8_t kind, int fd, void *owner)
    np_op *np_op_at(np_op_slab *slab, uint32_t slot)
    np_udata np_op_udata(np_op *op)

cdef extern from "mem/np_arena.h" nogil:
    enum:
        NP_ARENA_LADDER
        NP_ARENA_PLAIN_ONLY
        NP_ARENA_HUGETLB_ONLY

    struct np_arena:
        uint8_t *base
        size_t size_bytes
        uint8_t kind

    const char *np_arena_kind_name(int kind)

cdef extern from "mem/np_bufring.h" nogil:
    struct np_bufring:
        uint32_t count

    int np_bufring_open(np_bufring *br, uint32_t count, uint32_t buf_bytes)
    void np_bufring_close(np_bufring *br)
    uint8_t *np_bufring_consume(np_bufring *br, uint16_t bid, uint32_t len_bytes, int more)
    int np_bufring_recycle(np_bufring *br)
    int np_bufring_peek(np_bufring *br, uint32_t min_bytes, uint32_t *room_bytes)
    uint8_t *np_bufring_at(const np_bufring *br, uint16_t bid)
    void np_bufring_rewind(np_bufring *br)
    np_buf *np_bufring_buf(const np_bufring *br, uint16_t bid)
    uint32_t np_bufring_free_count(const np_bufring *br)
    void np_buf_hold(np_buf *buf)

cdef extern from "io/np_backend.h" nogil:
    struct np_config:
        uint32_t sq_entries, cq_entries, buf_count, buf_bytes, features_off, sqpoll_idle_ms
        uint32_t iov_count

    enum:
        NP_ATTACH_OFF
        NP_ATTACH_ON
        NP_CANCEL_SETTLE
        NP_SEND_QUIET

    struct np_counts:
        uint64_t enters, submissions, completions, recv_bytes, send_bytes
        uint64_t enobufs, stale, sq_full, moves, zc_bytes, copied_bytes, unsure_bytes
        uint64_t zc_refused
        uint32_t notifs_pending

    struct np_stats:
        np_counts counts
        uint32_t ops_live, regions_count, bufs_total, bufs_free, features, arena_kind

    struct np_backend:
        pass

    struct np_backend_ops:
        const char *name
        int (*open)(np_backend **out, const np_config *config, int wake_fd) noexcept nogil
        void (*close)(np_backend *be) noexcept nogil
        int (*enable)(np_backend *be) noexcept nogil
        int (*arm)(np_backend *be, np_op *op) noexcept nogil
        int (*send)(np_backend *be, int fd, void *owner, const iovec *iov, int iov_count,
                    int flags, int32_t *res, np_udata *op) noexcept nogil
        int (*submit)(np_backend *be, const void *sqes, uint32_t count, void *const *owners,
                      np_udata *ops) noexcept nogil
        int (*cancel)(np_backend *be, np_udata op, int flags) noexcept nogil
        void (*forget)(np_backend *be, int fd) noexcept nogil
        int (*attach)(np_backend *be, void *base, size_t size_bytes, int how) noexcept nogil
        int (*turn)(np_backend *be, np_event *events, int max, int64_t timeout_ns) noexcept nogil
        int (*flush)(np_backend *be) noexcept nogil
        int (*has_work)(np_backend *be) noexcept nogil

    struct np_backend_head:
        const np_backend_ops *ops
        np_op_slab slab
        np_bufring bufs
        uint8_t is_abandoned

    np_backend_head *np_head(np_backend *be)
    void np_backend_abandon(np_backend *be)
    np_stats np_backend_stats(const np_backend_head *head)
    const np_backend_ops np_uring_ops
    const np_backend_ops np_epoll_ops
    enum:
        NP_FEATURE_DEFER_TASKRUN
        NP_FEATURE_BUF_RING
        NP_FEATURE_BUF_INC
        NP_FEATURE_RECV_MULTI
        NP_FEATURE_ACCEPT_MULTI
        NP_FEATURE_PWAIT2
        NP_FEATURE_SEND_ZC
        NP_FEATURE_SENDMSG_ZC
        NP_FEATURE_ZC_FIXED
        NP_FEATURE_ZC_FIXED_VEC
        NP_FEATURE_SQPOLL
        NP_FEATURE_NO_IOWAIT

    int np_region_of(const np_backend_head *head, const iovec *iov, int iov_count)

cdef extern from "io/np_zc.h" nogil:
    struct np_zc:
        pass

    int np_zc_wants(np_zc *zc, size_t bytes, int is_registered, uint32_t notices_outstanding)
    void np_zc_report(np_zc *zc, int event_flags)

cdef extern from "mem/np_pool.h" nogil:
    ctypedef uint64_t np_block

    struct np_pool_class:
        uint32_t block_bytes, chunks_count, used_count
        uint64_t taken_count, refused_count

    struct np_pool:
        np_arena arena
        size_t size_bytes

    struct np_pool_stats:
        np_pool_class *classes
        size_t size_bytes, used_bytes, free_chunk_bytes
        uint32_t classes_count, blocks_used_count, arena_kind

    int np_pool_open(np_pool *pool, size_t size_bytes, const uint32_t *classes_bytes,
                     uint32_t classes_count, int arena_flags)
    void np_pool_close(np_pool *pool)
    int np_pool_take(np_pool *pool, size_t bytes, np_block *out)
    void np_pool_drop(np_pool *pool, np_block block)
    uint8_t *np_pool_base(np_pool *pool, np_block block)
    void np_pool_get_stats(np_pool *pool, np_pool_stats *out)

cdef extern from "io/uring/np_sqe.h" nogil:
    enum:
        NP_SQE_BYTES

    struct io_uring_sqe:
        uint8_t opcode, flags
        int32_t fd
        uint64_t user_data
        uint32_t file_index

    void np_sqe_read(io_uring_sqe *sqe, int fd, void *buf, uint32_t len_bytes, uint64_t offset)
    void np_sqe_write(io_uring_sqe *sqe, int fd, const void *buf, uint32_t len_bytes,
                      uint64_t offset)
    void np_sqe_openat(io_uring_sqe *sqe, int dir_fd, const char *path, int flags, uint32_t mode)
    void np_sqe_close(io_uring_sqe *sqe, int fd)
    void np_sqe_fsync(io_uring_sqe *sqe, int fd, int data_only)

cdef extern from "io/np_inbox.h" nogil:
    struct np_inbox_node:
        np_inbox_node *next

    struct np_inbox:
        int wake_fd

    int np_inbox_open(np_inbox *inbox)
    void np_inbox_close(np_inbox *inbox)
    int np_inbox_push(np_inbox *inbox, np_inbox_node *node)
    int np_inbox_wake(np_inbox *inbox)
    np_inbox_node *np_inbox_take(np_inbox *inbox)
    np_inbox_node *np_inbox_peek(const np_inbox *inbox)
    int np_inbox_is_empty(np_inbox *inbox)
    int np_inbox_sleep(np_inbox *inbox)
    void np_inbox_awake(np_inbox *inbox)

cdef extern from "io/np_timer.h" nogil:
    struct np_timer:
        int64_t when_ns
        uint32_t pos

    struct np_timer_slot:
        np_timer *timer

    struct np_timer_heap:
        np_timer_slot *slots
        uint32_t count

    void np_timer_heap_init(np_timer_heap *heap)
    void np_timer_heap_close(np_timer_heap *heap)
    int np_timer_add(np_timer_heap *heap, np_timer *timer)
    void np_timer_remove(np_timer_heap *heap, np_timer *timer)
    np_timer *np_timer_peek(np_timer_heap *heap)
    np_timer *np_timer_pop_due(np_timer_heap *heap, int64_t now_ns)
    int64_t np_clock_ns()

cdef extern from "sched/np_task.h" nogil:
    enum:
        NP_LANE_NORMAL
        NP_LANES
        NP_TASK_LEAVE
        NP_TASK_PUSH
        NP_TASK_PUSH_TICKET
        NP_HOME_ANY

    struct np_task:
        np_task *next
        void *run
        void *argument
        void *context
        uint64_t spare
        uint32_t home
        uint8_t kind, flags

    void np_task_init(np_task *task, uint8_t kind, uint8_t lane)
    void np_task_set_lane(np_task *task, uint8_t lane)
    uint8_t np_task_lane(np_task *task)
    int np_task_wake(np_task *task)
    int np_task_claim(np_task *task, int is_node)
    int np_task_pause(np_task *task)
    void np_task_finish(np_task *task)
    int np_task_revoke(np_task *task)
    int np_task_is_queued(np_task *task)

cdef extern from "mem/np_iov.h" nogil:
    struct np_chunk:
        void *owner
        const uint8_t *base
        size_t len_bytes

    struct np_iov:
        np_chunk *chunks
        uint32_t head, count, cap
        size_t skip_bytes
        size_t total_bytes

    void np_iov_init(np_iov *iov)
    void np_iov_close(np_iov *iov)
    int np_iov_grow(np_iov *iov)
    int np_iov_push(np_iov *iov, void *owner, const void *base, size_t len_bytes)
    int np_iov_gather(const np_iov *iov, iovec *out, int max)
    int np_iov_advance(np_iov *iov, size_t taken_bytes, void **owners, int max)
    const uint8_t *np_iov_piece(const np_iov *iov, uint32_t i, size_t *len_bytes)
    void *np_iov_pop(np_iov *iov)

cdef extern from "mem/np_owner.h" nogil:
    enum:
        NP_OWNER_OBJECT
        NP_OWNER_BUF
        NP_OWNER_HEAP
        NP_OWNER_FILE
        NP_OWNER_MASK

    void *np_owner_drop(void *owner)

cdef extern from "io/np_sock.h" nogil:
    struct np_peer:
        uint16_t family, port
        uint32_t flow_info, scope_id
        uint8_t address[16]

    int np_sock_accept(int listen_fd, np_peer *peer)
    ptrdiff_t np_sock_recv(int fd, void *buf, size_t len_bytes)
    ptrdiff_t np_sock_peek(int fd, void *buf, size_t len_bytes)
    ptrdiff_t np_sock_send(int fd, const iovec *iov, int iov_count)
    ptrdiff_t np_sock_sendfile(int fd, int file, int64_t offset, size_t len_bytes)
    int np_sock_shutdown(int fd, int how)
    int np_sock_close(int fd)
    void np_sock_reset_at_close(int fd)
    bint np_sock_peer_has_ended(int fd)
    int np_sock_error(int fd)
    void np_sock_peer(int fd, np_peer *peer)
    enum:
        NP_SOCK_PATH_BYTES
    size_t np_sock_name(int fd, bint of_peer, np_peer *name, char *path)
    void np_sock_nodelay(int fd)

cdef extern from "io/np_pipe.h" nogil:
    ptrdiff_t np_pipe_read(int fd, void *buf, size_t len_bytes)
    ptrdiff_t np_pipe_write(int fd, const iovec *iov, int iov_count)

cdef extern from "io/np_file.h" nogil:
    enum np_file_way:
        NP_FILE_ANYWHERE
        NP_FILE_BELOW

    struct np_file_facts:
        uint64_t device, inode
        int64_t size_bytes, changed_ns, inode_ns
        int32_t is_regular, is_directory

    int np_file_look(const char *path, np_file_facts *facts)
    int np_file_open(int directory, const char *path, np_file_way way, np_file_facts *facts)
    ptrdiff_t np_file_read(int fd, void *memory, size_t bytes, int64_t offset)

cdef extern from "server/np_proxy.h" nogil:
    enum:
        NP_PROXY_MAX_BYTES

    struct np_proxy:
        np_peer source, target

    struct np_network:
        uint16_t family, bits
        uint8_t address[16]

    ptrdiff_t np_proxy_read(const uint8_t *data, size_t size, np_proxy *proxy)
    int np_peer_read(const uint8_t *text, size_t size, np_peer *peer)
    bint np_networks_have(const np_network *networks, size_t count, const np_peer *peer)
    int np_forwarded_client(const uint8_t *value, size_t size, const np_network *networks,
                            size_t networks_count, size_t *at, size_t *bytes, np_peer *peer)

cdef extern from "server/np_seats.h" nogil:
    struct np_seat:
        pass
    void np_seat_set(np_seat *seat, int64_t connections)
    void np_seat_leave(np_seat *seat)
    void np_seat_beat(np_seat *seat, int64_t now_ns)
    int64_t np_seat_beat_ns(const np_seat *seat)
    bint np_seat_is_heavy(const np_seat *seats, uint32_t count, uint32_t own)

cdef extern from "server/np_conn.h" nogil:
    enum:
        NP_CONN_OPEN
        NP_CONN_DIRTY
        NP_CONN_PAUSED
        NP_CONN_CHOKED
        NP_CONN_FULL
        NP_CONN_CANCELLED
        NP_CONN_EOF
        NP_CONN_SHUT
        NP_CONN_CORKED
        NP_CONN_CALLED
        NP_CONN_TLS
        NP_CONN_TIMED
        NP_CONN_HELD
        NP_CONN_NOT_READING
        NP_CONN_CHUNK_COUNT

    struct np_flow:
        np_iov iov
        np_udata op
        uint16_t live
        uint32_t sending

    struct np_conn:
        np_task task
        np_flow *out
        int32_t fd
        uint32_t index, next, wheel_next, wheel_prev, serial
        uint16_t tick, flags, bulk
        np_zc zc

    struct np_conn_slab:
        uint32_t chunks_count, live_count, flow_chunks_count, flow_live_count

    void np_conn_slab_init(np_conn_slab *slab)
    void np_conn_slab_close(np_conn_slab *slab, int force)
    np_conn *np_conn_get(np_conn_slab *slab, void *worker, int fd)
    void np_conn_put(np_conn_slab *slab, np_conn *conn)
    np_flow *np_flow_get(np_conn_slab *slab)
    void np_flow_put(np_conn_slab *slab, np_flow *flow)
    int np_flow_push(np_flow *flow, void *owner, const void *base, size_t len_bytes)
    int np_flow_join(np_flow *flow, const void *base, size_t len_bytes)
    int np_flow_push_front(np_flow *flow, void *owner, const void *base, size_t len_bytes)
    int np_flow_move(np_flow *source, np_flow *target, size_t len_bytes)
    int64_t np_flow_shed(np_flow *flow)
    void np_flow_copy(const np_flow *flow, void *target, size_t len_bytes)
    int64_t np_flow_find(const np_flow *flow, const uint8_t *wanted, size_t wanted_bytes,
                         size_t start_bytes)
    int np_flow_gather(const np_flow *flow, iovec *out, int max, size_t *total)
    np_conn *np_conn_at(const np_conn_slab *slab, uint32_t index)
    np_flow *np_flow_at(const np_conn_slab *slab, uint32_t index)
    void *np_conn_cookie(np_conn *conn)
    np_conn *np_conn_of(void *cookie)
    np_flow *np_conn_in(const np_conn *conn)
    void np_conn_pin(np_conn *conn)
    int np_conn_unpin(np_conn *conn)
    bint np_conn_is_pinned(const np_conn *conn)

cdef extern from "sys/socket.h" nogil:
    struct sockaddr:
        uint16_t sa_family

cdef extern from "netinet/in.h" nogil:
    struct sockaddr_in:
        uint16_t sin_family, sin_port

    struct sockaddr_in6:
        uint16_t sin6_family, sin6_port
        uint32_t sin6_flowinfo, sin6_scope_id

    uint16_t htons(uint16_t host)
    uint16_t ntohs(uint16_t net)
    uint32_t htonl(uint32_t host)
    uint32_t ntohl(uint32_t net)
    enum:
        INET6_ADDRSTRLEN

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *address, char *text, uint32_t text_bytes)
    int inet_pton(int family, const char *text, void *address)

cdef extern from "io/np_dgram.h" nogil:
    enum:
        NP_DGRAM_BURST_COUNT
        NP_DGRAM_BURST_BYTES
        NP_DGRAM_MAX_BYTES

    struct np_dgram:
        const uint8_t *data
        uint32_t len_bytes, segment_bytes
        const sockaddr *name
        uint32_t name_bytes

    struct np_dgram_out:
        const void *data
        uint32_t len_bytes, name_bytes
        const sockaddr *name

    struct np_dgram_in:
        pass

    np_dgram_in *np_dgram_in_open()
    void np_dgram_in_close(np_dgram_in *received)
    int np_dgram_recv(np_dgram_in *received, int fd, int max_count, int gro)
    void np_dgram_at(const np_dgram_in *received, int index, np_dgram *out)
    int np_dgram_send(int fd, const np_dgram_out *out, int count, uint32_t *gso_max_bytes)
    uint32_t np_dgram_gso_max_bytes(int fd)
    int np_dgram_has_gro(int fd)

# CPython API that Cython has no declaration for, or declares with a slower signature.
cdef extern from "Python.h":
    ctypedef struct PyObject
    object PyContext_CopyCurrent()
    object PyContext_Copy(PyObject *ctx)
    int PyContext_Enter(PyObject *ctx) except -1
    int PyContext_Exit(PyObject *ctx) except -1
    PyObject *PyObject_Vectorcall(PyObject *fn, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
    PyObject *PyObject_CallOneArg(PyObject *fn, PyObject *arg)
    PyObject *PyObject_CallNoArgs(PyObject *fn)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    int PyErr_CheckSignals() except -1
    int PyThread_acquire_lock_timed(void *lock, long long timeout_us, int is_interruptible) nogil
    void PyErr_SetObject(PyObject *type, PyObject *value)
    char *PyBytes_AS_STRING(object o)
    Py_ssize_t PyBytes_GET_SIZE(object o)
    object PyBytes_FromStringAndSize(const char *v, Py_ssize_t n)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t newsize) except -1
    PyObject *PyTuple_GET_ITEM(object tuple, Py_ssize_t i)
    Py_ssize_t PyTuple_GET_SIZE(object tuple)
    void Py_INCREF "Py_INCREF"(PyObject *o)
    void Py_DECREF "Py_DECREF"(PyObject *o)
    void Py_XDECREF "Py_XDECREF"(PyObject *o)
    PyObject *PyBytes_New "PyBytes_FromStringAndSize"(const char *v, Py_ssize_t n) except NULL
    PyObject *PyExc_StopIteration
    Py_ssize_t Py_REFCNT(PyObject *o)

    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    int PyObject_GC_IsTracked(PyObject *o)
    void PyObject_GC_Track(PyObject *o)
    void PyObject_GC_UnTrack(PyObject *o)
    int PyObject_IS_GC(PyObject *o)
    PySendResult PyIter_Send(PyObject *iterator, PyObject *value, PyObject **result)
    int PyCoro_CheckExact(PyObject *o)
    PyObject *PyObject_Call(PyObject *fn, PyObject *args, PyObject *kwargs)

    ctypedef struct PyTupleObject:
        PyObject *ob_item[1]

    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc

    int METH_FASTCALL
    int METH_KEYWORDS
    object PyDescr_NewMethod(PyTypeObject *type, PyMethodDef *method)
    void PyType_Modified(PyTypeObject *type)
    unsigned long Py_TPFLAGS_HEAPTYPE

    ctypedef struct PyAsyncMethods:
        void *am_send

    ctypedef int (*visitproc)(PyObject *what, void *arg) noexcept
    ctypedef int (*traverseproc)(PyObject *self, visitproc visit, void *arg) noexcept
    ctypedef int (*inquiry)(PyObject *self) noexcept
    unsigned long Py_TPFLAGS_HAVE_GC

    ctypedef struct PyTypeObject:
        unsigned long tp_flags
        traverseproc tp_traverse
        inquiry tp_clear
        PyAsyncMethods *tp_as_async
        void *tp_iternext
        void *tp_init
        void *tp_vectorcall
        unsigned long tp_flags
        object tp_descr_get(object descriptor, object instance, PyObject *cls)
        int tp_descr_set(object descriptor, object instance, object value) except -1
        PyObject *tp_dict
        Py_ssize_t tp_weaklistoffset
        Py_ssize_t tp_dictoffset

    PyTypeObject *Py_TYPE(PyObject *o)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define NP_CAN_REUSE_BYTES 0
    #define NP_HAS_GIL 0
    #else
    #define NP_CAN_REUSE_BYTES 1
    #define NP_HAS_GIL 1
    #endif
    /* A bytes object that nobody but its owner refers to becomes a fresh one of `size` bytes. */
    static inline void np_bytes_renew(PyObject *o, Py_ssize_t size)
    {
    #pragma GCC diagnostic push
    #pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        ((PyBytesObject *)o)->ob_shash = -1;
    #pragma GCC diagnostic pop
        Py_SET_SIZE((PyVarObject *)o, size);
        PyBytes_AS_STRING(o)[size] = 0;
    }
    """
    int NP_CAN_REUSE_BYTES
    int NP_HAS_GIL
    void np_bytes_renew(PyObject *o, Py_ssize_t size)

cdef extern from "string.h" nogil:
    void *memmem(const void *haystack, size_t haystack_bytes, const void *needle,
                 size_t needle_bytes)
