# Locks that a loop releases when it has let go of the GIL for its wait: whoever waits at one of
# them would else wake up only to wait for the GIL.

from cpython.pythread cimport PyThread_release_lock, PyThread_type_lock

from netpoll._native.limits cimport AWAY_LOCKS_MAX_COUNT


cdef struct Away:
    PyThread_type_lock locks[AWAY_LOCKS_MAX_COUNT]
    int count


cdef inline void release_when_away(Away *away, PyThread_type_lock lock) noexcept:
    """Only in the loop's thread."""
    if away.count == AWAY_LOCKS_MAX_COUNT:
        PyThread_release_lock(lock)
        return
    away.locks[away.count] = lock
    away.count += 1


cdef inline void release_away(Away *away) noexcept nogil:
    while away.count:
        away.count -= 1
        PyThread_release_lock(away.locks[away.count])
