# The seam of http/crew.pyx: threads for what blocks.

from cpython.pythread cimport PyThread_type_lock

from netpoll._core cimport Completion, Loop


cdef class Runner(Completion):
    """Knows what to do with jobs of one kind. In a thread of the crew."""
    cdef int run(self, object job) except -1
    cdef bint guard(self) except -1


cdef class Seat:
    """Where one thread waits."""
    cdef PyThread_type_lock lock    # held, until somebody wakes the thread
    cdef Runner runner
    cdef object job
    cdef bint has_begun         # its thread runs
    cdef bint is_counted        # among the crew's threads
    cdef bint is_coming


cdef class Crew:
    cdef object make_thread
    cdef long long idle_max_us
    # What follows is only touched in critical sections, which run no Python code and make no
    # objects: the collector would.
    cdef list jobs              # (a runner, its job) in turn; those before next_at were taken
    cdef Py_ssize_t next_at
    cdef list parked            # seats of threads that wait; the warmest comes last
    cdef Py_ssize_t threads_max_count, threads_count
    cdef Py_ssize_t coming_count    # threads that were woken or made and have not looked yet
    cdef bint is_closed

    cdef Py_ssize_t waiting_count(self) noexcept
    cdef int put(self, Runner runner, object job) except -1
    cdef list take_back(self, Runner runner, object job)
    cdef bint is_short(self) except -1
    cdef int call(self, bint for_all, Loop loop) except -1
    cdef bint start(self) except -1
    cdef bint take(self, Seat seat) except -1
    cdef int pop(self, Seat seat) except -1
    cdef bint wait(self, Seat seat) except -1
