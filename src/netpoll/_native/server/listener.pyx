# cython: language_level=3, freethreading_compatible=True
"""Accepting for a server: one Listener for each listening socket.

Connections are dealt to the workers, the least loaded first: with SO_REUSEPORT the kernel deals by
a hash, and of four workers with 64 connections the busiest has 25 % too many (docs/server.md).

Processes that share a socket cannot be dealt to. There a poll says that somebody waits, and a
process takes one of them, after the others if it has more connections than they (server/seats.pyx).
"""

from libc.errno cimport EAGAIN

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_EV_MORE, NP_OP_ACCEPT, NP_OP_POLL, np_event, np_sock_accept, np_sock_close,
    np_sock_nodelay)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport SEAT_BURST_MAX_COUNT, SEAT_YIELD_NS
from netpoll._native.seal cimport seal_types
from netpoll._native.server.seats cimport Seats
from netpoll._native.server.worker cimport Worker
from netpoll._native.transport.acceptor cimport Accepting, is_exhausted, is_of_the_peer

import socket as py_socket

cdef int _AF_UNIX = int(py_socket.AF_UNIX)


cdef inline Py_ssize_t load_of(Worker worker) noexcept:
    """Its connections, and those on their way to it. What it counts may be older than our own."""
    return <Py_ssize_t>(worker.dealt_count + worker.adopted_count - worker.ended_count)


cdef class Listener(Accepting):
    """Accepts on one socket and deals the connections to the workers, the least loaded first."""

    def __cinit__(self, Loop loop, sock, list workers, Py_ssize_t connections_max_count, told,
                  Seats seats=None):
        self.loop = loop
        self.sock = sock
        self.workers = workers
        self.connections_max_count = connections_max_count
        self.told = told
        self.seats = seats
        self.fd = sock.fileno()
        self.waiting = []
        if sock.family != _AF_UNIX:
            np_sock_nodelay(self.fd)

    def start(self):
        if not self.op and not self.is_closed:
            self.publish()
            self.arm()

    def publish(self):
        """Tells the other processes how many connections there are."""
        if self.seats is not None and not self.is_closed:
            self.seats.publish(self.load())

    @property
    def is_waiting(self):
        """It would like to know when a connection ends."""
        return bool(self.is_paused)

    @property
    def paused_count(self):
        return self.pauses_count

    cdef int arm(self) except -1:
        self.is_paused = False
        if self.seats is not None:
            return Accepting.arm(self)
        self.op = self.loop.arm(NP_OP_ACCEPT, self.fd, self, 0)
        return 0

    def stop(self):
        """Ends accepting and closes the listening socket at once. In the loop's thread."""
        for fd in self.waiting:
            np_sock_close(fd)
        self.waiting.clear()
        if self.seats is not None:
            self.seats.leave_own()
        Accepting.stop(self)

    cdef Py_ssize_t load(self) except -1:
        cdef Worker worker
        cdef Py_ssize_t total = 0
        for worker in self.workers:
            total += load_of(worker)
        return total

    cdef int deal(self, int fd) except -1:
        cdef Worker worker, least = self.workers[0]
        for worker in self.workers:
            if load_of(worker) < load_of(least):
                least = worker
        least.dealt_count += 1
        if least.loop is self.loop:
            return least.adopt(fd)
        least.dealt.append(fd)
        try:
            least.loop.call_soon_threadsafe(least._adopt_dealt)
        except RuntimeError:
            least.is_over = True  # its loop is closed
        if least.is_over:
            least.close_dealt()
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if not event.flags & NP_EV_MORE:
            self.op = 0
        if self.is_closed:
            # Accepted before the end: its peer has a connection, so it is served. A worker that
            # stops already closes it.
            return self.deal(event.res) if event.res >= 0 and event.kind != NP_OP_POLL else 0
        if event.res < 0:
            return self.failed(event.res)
        if event.kind == NP_OP_POLL:
            return self.on_waiting()
        self.take(event.res)
        return self.go_on()

    cdef int on_waiting(self) except -1:
        """Somebody waits on a shared socket, or did: another process may have been faster."""
        cdef int fd
        cdef int count = 1
        if not self.seats.is_heavy():
            self.fruitless_count = 0
        elif not self.has_yielded:
            self.has_yielded = True
            self.retry = self.loop.call_later(SEAT_YIELD_NS / 1e9, self._retry)
            return 0
        else:
            count = min(1 + self.fruitless_count // SEAT_BURST_MAX_COUNT, SEAT_BURST_MAX_COUNT)
            self.fruitless_count += 1
        for _ in range(count):
            fd = np_sock_accept(self.fd, NULL)
            if fd == -EAGAIN or is_of_the_peer(fd):
                break
            if fd < 0:
                return self.failed(fd)
            self.take(fd)
            if self.waiting:
                break
        self.has_yielded = False
        self.publish()
        return self.go_on()

    cdef int take(self, int fd) except -1:
        """An accepted connection: to a worker, or to those that wait for a place."""
        if not self.is_full():
            return self.deal(fd)
        self.waiting.append(fd)
        if not self.is_paused:
            self.is_paused = True
            self.pauses_count += 1
            if self.op:
                self.loop.cancel(self.op)
        if not self.is_full():  # another thread has not seen that we wait
            self.connection_ended()
        return 0

    cdef bint is_full(self) except -1:
        return self.connections_max_count and self.load() >= self.connections_max_count

    cdef int go_on(self) except -1:
        """Accepts again, or still, unless something speaks against it."""
        if self.op or self.is_closed or self.retry is not None or self.waiting:
            return 0
        if self.is_paused and self.is_full():
            return 0
        return self.arm_again()

    cdef int failed(self, int err) except -1:
        if err == -ECANCELED:
            return self.go_on()  # paused, and perhaps a place is free again already
        if is_of_the_peer(err):
            return self.go_on()
        self.is_paused = True
        self.pauses_count += 1
        if is_exhausted(err):
            if self.told is not None:
                self.told(os_error(err))
                self.told = None  # once: it may go on for long
        else:
            self.loop.call_exception_handler({
                "message": "netpoll.Server: accepting failed", "exception": os_error(err)})
        return self.pause()

    def connection_ended(self):
        """A place is free: who waits for one is served, and accepting goes on."""
        while self.waiting and not self.is_full():
            self.deal(self.waiting.pop(0))
        if self.is_paused:
            self.end_pause()
        self.go_on()


seal_types(globals(), (Listener,))
