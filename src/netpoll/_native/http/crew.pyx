# cython: language_level=3, freethreading_compatible=True
"""The threads of a pool, and the jobs that wait for them.

    put -> call: one thread for all that is put in a turn -> take, run, take, run, ... -> wait
                 └─ took one, and others wait -> guard: somebody looks when that thread has
                    let go of the GIL, and calls threads for all that still wait

Two threads that want the GIL at the same time cost more than a short job does. While a thread holds
it, no other could run a job, so jobs are left to that one, and somebody who needs the GIL anyway
comes to look: the loop that takes the answers. It gets the GIL when the thread blocks, or when
nothing waits any more. What holds is: while a job waits, a thread is on its way (coming_count), or
a guard is, or all threads that there may be are busy. Without a GIL each job has a thread at once.
"""

cimport cython
from cpython.list cimport PyList_GET_SIZE
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock)

from netpoll._native.away cimport release_when_away
from netpoll._native.c cimport NP_HAS_GIL, PyThread_acquire_lock_timed
from netpoll._native.limits cimport HTTP_JOBS_TAKEN_MAX_COUNT
from netpoll._native.seal cimport seal_types


cdef class Runner(Completion):
    cdef int run(self, object job) except -1:
        """Must not raise."""
        return 0

    cdef bint guard(self) except -1:
        """Others wait behind a job that is about to run: somebody has to look at them, with
        is_short(), when the GIL is free. False: nobody will."""
        return False


cdef class Calls(Runner):
    """Jobs that are functions."""

    cdef int run(self, object job) except -1:
        job()
        return 0


cdef class Seat:
    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        PyThread_acquire_lock(self.lock, WAIT_LOCK)

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)


cdef Runner NOTHING = Runner.__new__(Runner)
cdef Calls CALLS = Calls.__new__(Calls)


cdef class Crew:
    """make_thread(seat): starts a thread that calls serve(seat); raises RuntimeError where the
    system has none."""

    def __cinit__(self, Py_ssize_t threads_max_count, double idle_max_s, make_thread):
        if not 0 < idle_max_s < 1e9:
            raise ValueError(f"a thread is idle for a while, not {idle_max_s} s")
        self.threads_max_count = threads_max_count
        self.idle_max_us = <long long>(idle_max_s * 1e6)
        self.make_thread = make_thread
        self.jobs = []
        self.parked = []

    # ---- who has jobs ---------------------------------------------------------------------------

    def submit(self, job):
        """A function. RuntimeError: there is no thread, and the system has none."""
        self.put(CALLS, job)
        try:
            self.call(True, None)
        except BaseException:
            self.take_back(CALLS, job)
            raise

    cdef Py_ssize_t waiting_count(self) noexcept:
        return (PyList_GET_SIZE(self.jobs) - self.next_at) >> 1

    cdef int put(self, Runner runner, object job) except -1:
        """It waits. Then somebody has to call threads for it."""
        with cython.critical_section(self):
            self.jobs.append(runner)
            self.jobs.append(job)
        return 0

    cdef list take_back(self, Runner runner, object job):
        """Jobs of a runner that wait; None: all of its."""
        cdef Py_ssize_t i
        cdef list back = []
        with cython.critical_section(self):
            for i in range(self.next_at, PyList_GET_SIZE(self.jobs), 2):
                if self.jobs[i] is runner and (job is None or self.jobs[i + 1] is job):
                    back.append(self.jobs[i + 1])
                    self.jobs[i] = NOTHING
                    self.jobs[i + 1] = None
        return back

    cdef bint is_short(self) except -1:
        """Jobs wait, and nobody comes for them: those that run have let go of the GIL."""
        cdef bint answer = False
        with cython.critical_section(self):
            answer = self.waiting_count() > 0 and self.coming_count == 0
        return answer

    cdef int call(self, bint for_all, Loop loop) except -1:
        """Threads for what waits: one, or one for each, less those that are on their way. With a
        loop, that runs in this thread, they wake when it waits. RuntimeError: there is none, and
        the system has none."""
        cdef Seat seat
        cdef Py_ssize_t wanted
        cdef bint grows
        while True:
            seat = None
            with cython.critical_section(self):
                wanted = self.waiting_count()
                if NP_HAS_GIL and not for_all and wanted > 1:
                    wanted = 1
                grows = False
                if wanted > self.coming_count:
                    if PyList_GET_SIZE(self.parked):
                        seat = <Seat>self.parked.pop()
                        seat.is_coming = True
                        self.coming_count += 1
                    else:
                        grows = self.threads_count < self.threads_max_count
            if seat is None:
                if not grows or not self.start():
                    return 0
            elif loop is not None:
                release_when_away(&loop.away, seat.lock)
            else:
                PyThread_release_lock(seat.lock)

    cdef bint start(self) except -1:
        """A thread more. False: the system has none, those that are there have to do."""
        cdef Seat seat = Seat.__new__(Seat)
        cdef bint is_alone = False
        with cython.critical_section(self):
            self.threads_count += 1
            self.coming_count += 1
            seat.is_counted = seat.is_coming = True
        try:
            self.make_thread(seat)
        except BaseException as exc:  # also of a signal handler, with the thread made or not
            with cython.critical_section(self):
                if not seat.has_begun:
                    seat.is_counted = seat.is_coming = False
                    self.threads_count -= 1
                    self.coming_count -= 1
                is_alone = self.threads_count == 0
            if is_alone or not isinstance(exc, RuntimeError):
                raise
            return False
        return True

    def close(self):
        """The threads end when what was put has ended. Does not wait for them."""
        cdef list parked = []
        with cython.critical_section(self):
            self.is_closed = True
            parked, self.parked = self.parked, parked
        for seat in parked:
            PyThread_release_lock((<Seat>seat).lock)

    # ---- in a thread ----------------------------------------------------------------------------

    def serve(self, Seat seat not None):
        """Runs jobs until this thread is not needed any more."""
        with cython.critical_section(self):
            seat.has_begun = True
            if not seat.is_counted:
                seat.is_counted = True
                self.threads_count += 1
        try:
            while self.take(seat):
                seat.runner.run(seat.job)
                seat.job = None  # and with it the request
        except BaseException:
            with cython.critical_section(self):
                self.threads_count -= 1
            self.call(False, None)  # for those that waited for this thread
            raise

    cdef bint take(self, Seat seat) except -1:
        """The next job. False: this thread is not needed any more, and is not counted."""
        cdef bint has_one, is_over, is_well
        while True:
            is_over = is_well = False
            with cython.critical_section(self):
                if seat.is_coming:
                    seat.is_coming = False
                    self.coming_count -= 1
                has_one = self.waiting_count() > 0
                if has_one:
                    self.pop(seat)
                    # Nobody waits, or somebody comes, or all are busy and will look.
                    is_well = (
                        self.waiting_count() == 0 or self.coming_count > 0
                        or not PyList_GET_SIZE(self.parked)
                        and self.threads_count >= self.threads_max_count)
                elif self.is_closed:
                    is_over = True
                    self.threads_count -= 1
                else:
                    self.parked.append(seat)
            if has_one:
                if not is_well and not seat.runner.guard():
                    self.call(False, None)
                return True
            if is_over or not self.wait(seat):
                return False

    cdef int pop(self, Seat seat) except -1:
        cdef Py_ssize_t at = self.next_at
        seat.runner = <Runner>self.jobs[at]
        seat.job = self.jobs[at + 1]
        self.jobs[at] = None
        self.jobs[at + 1] = None
        self.next_at = at + 2
        if self.waiting_count() == 0 or self.next_at >= 2 * HTTP_JOBS_TAKEN_MAX_COUNT:
            del self.jobs[:self.next_at]
            self.next_at = 0
        return 0

    cdef bint wait(self, Seat seat) except -1:
        """False: nobody has come for so long, and this thread is not counted any more."""
        cdef Py_ssize_t i
        cdef bint is_woken, is_idle = False
        with nogil:
            is_woken = PyThread_acquire_lock_timed(seat.lock, self.idle_max_us, 0) == 1
        if is_woken:
            return True
        with cython.critical_section(self):
            for i in range(PyList_GET_SIZE(self.parked)):
                if self.parked[i] is seat:
                    del self.parked[i]
                    self.threads_count -= 1
                    is_idle = True
                    break
        if is_idle:
            return False
        with nogil:  # somebody is about to wake it
            PyThread_acquire_lock(seat.lock, WAIT_LOCK)
        return True


seal_types(globals(), (Crew,))
