/* np_fault.h - what can be made to happen, how often it is to, and how often it has.
 *
 * Faults    enum np_fault; each says which document allows it. Those before NP_FAULT_SEND_ERROR
 *           may cost a program time, but nothing else. The others it has to be told of.
 * Ownership A plan is its maker's, and that of each wrapper (np_faulty.h) that was given it.
 * Threads   Any: loops of several threads share a plan.
 */
#ifndef NP_FAULT_H
#define NP_FAULT_H

#include <stdint.h>

enum np_fault {
    /* "Requests may complete in any order", io_uring(7); when is not said either. Of a readiness
     * that was asked for with NP_POLL_LEVEL the backend itself promises more: not those. */
    NP_FAULT_DELAY,
    /* The same, within one batch. The completions of one operation keep their order, and so do
     * those of linked entries (io_uring_enter(2), IOSQE_IO_LINK). On epoll: epoll_wait(2) says
     * nothing of the order of descriptors. */
    NP_FAULT_REORDER,
    /* "maxevents" may be less than what is ready, epoll_wait(2); completions that are not taken
     * stay in the queue, and beyond its size in the kernel's overflow list (io_uring_setup(2),
     * IORING_FEAT_NODROP). With a small cq_entries the queue overflows. */
    NP_FAULT_FEW,
    /* io_uring_enter(2): EAGAIN, "the kernel was unable to allocate memory for the request"; EBUSY,
     * completions have overflowed: nothing is submitted, nothing waited for. */
    NP_FAULT_BUSY,
    /* signal(7): io_uring_enter(2) and epoll_wait(2) are never restarted after a handler: EINTR. */
    NP_FAULT_EINTR_WAIT,
    /* send(2) on a nonblocking socket, as write(2), "may transfer fewer than count bytes". */
    NP_FAULT_SHORT_SEND,
    /* send(2), EAGAIN: the kernel has no memory for the socket now, though POLLOUT says so at
     * once (tcp(7): tcp_mem is all sockets'). */
    NP_FAULT_EAGAIN_SEND,
    /* send(2), EINTR: "a signal occurred before any data was transmitted". */
    NP_FAULT_EINTR_SEND,
    /* recv(2) "returns any data available, up to the requested amount". */
    NP_FAULT_SHORT_RECV,
    /* recv(2), EINTR: "the receive was interrupted by delivery of a signal before any data was
     * available". */
    NP_FAULT_EINTR_RECV,
    /* io_uring_prep_recv_multishot(3): a completion without IORING_CQE_F_MORE ends the request, and
     * "the application should issue a new request". io_uring only. */
    NP_FAULT_ONE_SHOT,
    /* select(2) and poll(2), BUGS: a socket may be reported as ready "while nevertheless a
     * subsequent read blocks"; also a readiness that is said twice. Sockets only. */
    NP_FAULT_SPURIOUS,
    /* io_uring_prep_cancel(3): a request that is being completed "will not be cancelled": the
     * cancel has lost the race. io_uring only, and not of a descriptor that is the program's. */
    NP_FAULT_LATE_CANCEL,
    /* io_uring_prep_send_zc(3): the notification comes when the memory is not needed any more,
     * which the peer decides. */
    NP_FAULT_LATE_NOTICE,
    /* io_uring_prep_send_zc(3): "EOPNOTSUPP", and ENOMEM for RLIMIT_MEMLOCK. */
    NP_FAULT_NO_ZC,
    /* accept(2): "errors already pending on the new socket" are accept's: "treat them like EAGAIN";
     * EMFILE, ENFILE, ENOBUFS, ENOMEM. The operation has ended, the backlog keeps who waits. */
    NP_FAULT_ACCEPT,
    /* read(2), write(2): fewer bytes than asked for. */
    NP_FAULT_SHORT_FILE,
    /* read(2), write(2), EINTR: a signal met it before it did anything. */
    NP_FAULT_EINTR_FILE,
    /* io_uring_register_buffers(3), ENOMEM: RLIMIT_MEMLOCK. */
    NP_FAULT_NO_MEMLOCK,

    /* send(2): ENOBUFS, ENOMEM. */
    NP_FAULT_SEND_ERROR,
    /* recv(2): ENOMEM. */
    NP_FAULT_RECV_ERROR,
    /* epoll_ctl(2): ENOMEM, ENOSPC; a ring without memory for another operation. */
    NP_FAULT_ARM_ERROR,
    /* No slot for an operation, says `send` or `submit`: -ENOMEM. */
    NP_FAULT_NO_SLOT,
    /* read(2), write(2), fsync(2): EIO. */
    NP_FAULT_FILE_ERROR,
    NP_FAULTS
};

#define NP_FAULT_RATE_ONE 65536u /* each time */

struct np_fault_plan; /* what is to happen how often, and what has happened */

/* rates: NP_FAULTS of them, out of NP_FAULT_RATE_ONE. NULL without memory. */
struct np_fault_plan *np_fault_plan_open(uint64_t seed, const uint32_t *rates);
/* Its maker has no use for it any more; the wrappers that have keep it. */
void np_fault_plan_release(struct np_fault_plan *plan);
/* From here on nothing happens any more (1), or does again (0). */
void np_fault_plan_set_calm(struct np_fault_plan *plan, int is_calm);
uint64_t np_fault_plan_count(const struct np_fault_plan *plan, enum np_fault fault);
/* "short_send", for instance; NULL beyond the last. */
const char *np_fault_name(int fault);

#endif
