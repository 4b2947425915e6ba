# cython: language_level=3, freethreading_compatible=True
"""Processes that serve the same listening sockets: how many connections each has, and whether it
runs (csrc/server/np_seats.h). The parent makes the seats; each child takes one."""

from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

from netpoll._native.c cimport (
    np_seat, np_seat_beat, np_seat_beat_ns, np_seat_is_heavy, np_seat_leave, np_seat_set)
from netpoll._native.seal cimport seal_types

import mmap
import time


cdef class Seats:
    """count: of processes that may be there at the same time."""

    def __cinit__(self, int count):
        cdef Py_buffer view
        if not 1 <= count <= 1 << 16:
            raise ValueError("there are 1 to 65536 seats")
        self.memory = mmap.mmap(-1, count * sizeof(np_seat))
        PyObject_GetBuffer(self.memory, &view, PyBUF_CONTIG)
        self.seats = <np_seat*>view.buf  # of anonymous memory: it stays where it is
        PyBuffer_Release(&view)
        self.count = count
        self.own = -1

    cdef int check(self, int index) except -1:
        if not 0 <= index < self.count:
            raise IndexError(f"there is no seat {index}")
        return 0

    def take(self, int index):
        """This process has that seat from now on."""
        self.check(index)
        self.own = index

    def leave(self, int index):
        """Whoever had it is gone."""
        self.check(index)
        np_seat_leave(&self.seats[index])

    cdef bint has_one(self) noexcept:
        """No: also of one whose making has failed, in a subclass's finaliser."""
        return 0 <= self.own < self.count

    def beat(self, beat_s):
        """The loops of this process have run at this time (time.monotonic())."""
        if self.has_one():
            np_seat_beat(&self.seats[self.own], int(beat_s * 1e9))

    def silence_s(self, int index):
        """How long ago the loops of that process have run."""
        self.check(index)
        return time.monotonic() - np_seat_beat_ns(&self.seats[index]) / 1e9

    # What a listener says, and asks.

    cdef int publish(self, int64_t connections) noexcept:
        if self.has_one():
            np_seat_set(&self.seats[self.own], connections)
        return 0

    cdef int leave_own(self) noexcept:
        if self.has_one():
            np_seat_leave(&self.seats[self.own])
        return 0

    cdef bint is_heavy(self) noexcept:
        return self.has_one() and np_seat_is_heavy(self.seats, self.count, self.own)


seal_types(globals(), (Seats,))
