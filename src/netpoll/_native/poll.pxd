# The bits of poll(2). NP_OP_POLL takes and reports them on both backends.

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT
        POLLERR
        POLLHUP
        POLLRDHUP
