# The seam of sched/task.pyx: tasks, and what they know of their scheduler.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from netpoll._native.c cimport PyObject, np_task
from netpoll._native.sched.c cimport np_lock, np_sched, np_worker
from netpoll._native.sched.context cimport Contexts


cdef enum:
    KIND_POST = 0       # run: a callable; argument, flags: see sched/run.pxd
    KIND_TASK = 1       # run: the Task that embeds the record
    KIND_TICKET = 2     # run: a Task that is queued elsewhere, too
    KIND_NATIVE = 3     # see sched/run.pxd


cdef struct Worker:
    np_worker *native
    Contexts contexts
    PyObject *core      # borrowed: the thread that works holds it
    PyObject *task      # the Task that runs, borrowed; NULL: none
    PyObject *loop      # the event loop that it sleeps in, borrowed; NULL: none
    uint32_t slice_count
    bint is_boarding    # it is to go on in its loop; its own thread's
    bint has_thread
    bint is_idle        # it sleeps and holds the scheduler by one reference, nothing else


cdef class Suspension:
    """What a coroutine can wait for: the scheduler's own awaitables."""
    cdef int attach(self, Task waiter) except -1
    cdef int detach(self, Task waiter) except -1


cdef class Task(Suspension):
    cdef np_task node
    cdef Core core
    cdef object target          # a coroutine, or what to call with `arguments`
    cdef object arguments       # a tuple or None
    cdef object context         # a shared snapshot, or with owns_context the task's own
    cdef object result_value, error
    cdef object waiters         # None, a Task or a callable, or a list of these
    cdef object waiting_on      # the Suspension it waits for, or None
    cdef object task_name, cancel_message
    cdef PyObject *registry_next
    cdef PyObject *registry_previous
    cdef uint32_t cancel_requests
    cdef char is_done           # np_flag_get, np_flag_set
    cdef uint8_t base_lane
    cdef bint is_coroutine, has_begun, is_registered, must_cancel, owns_context, is_retrieved
    cdef object __weakref__

    cdef int wait_done(self, timeout) except -1


cdef class Core:
    """What tasks and alarms know of their scheduler; SchedulerCore in sched/run.pyx is the rest."""
    cdef np_sched *sched
    cdef Worker *workers
    cdef uint32_t workers_count
    cdef PyObject *posted           # as Contexts.posted, of threads that are no workers
    cdef np_lock registry_lock
    cdef PyObject *registry         # the tasks that have been suspended, and are not done
    cdef uint32_t fork_generation
    cdef object __weakref__

    cdef int check_usable(self) except -1
    cdef int check_made(self) except -1
    cdef Worker *worker_here(self) noexcept


cdef object asked(Suspension what, bint *is_asked)
cdef uint32_t forks() noexcept
cdef Worker *thread_worker() noexcept
cdef void set_thread_worker(Worker *worker) noexcept
cdef int check_lane(long lane) except -1
cdef int push_record(Core core, np_task *task) noexcept
cdef int push_entry(Task task, int verdict) except -1
cdef int wake_task(Task task) except -1
cdef int finish(Task task, object result, object error) except -1
cdef int register(Task task) except -1
cdef void show_suspended(Core core) noexcept
cdef bint claim_suspended(Task task) noexcept
cdef int end_suspended(Task task) except -1
