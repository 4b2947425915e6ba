# The seam of http/meter.pyx: what a worker's requests are counted by.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from netpoll._native.http.c cimport NP_HTTP_FAULTS_COUNT, NP_HTTP_METHODS_COUNT
from netpoll._native.limits cimport (
    METER_BUCKETS_COUNT, METER_SERIES_COUNT, METER_STATUSES_COUNT)


cdef struct Series:
    # Requests of one method that ended with one status.
    uint8_t method
    int status
    uint64_t durations[METER_BUCKETS_COUNT + 1]
    uint64_t duration_ns            # of all together


cdef class Meter:
    # Written by the loop's thread, one word at a time; read by any.
    cdef uint64_t begun_count, ended_count
    cdef Series series[METER_SERIES_COUNT]  # the first one: of pairs that came too late
    cdef uint8_t series_of[NP_HTTP_METHODS_COUNT][METER_STATUSES_COUNT]  # 0: none yet
    cdef uint8_t series_last
    cdef uint64_t faults[NP_HTTP_FAULTS_COUNT]
    cdef uint64_t stalled_count     # answers that their peers did not take

    cdef int64_t begin(self) noexcept
    cdef int end(self, uint8_t method, int status, int64_t *began_ns) noexcept
    cdef int refused(self, int fault) noexcept
    cdef Series *find(self, uint8_t method, int status) noexcept
