# cython: language_level=3, freethreading_compatible=True
"""Counts a worker's requests, for those who watch a server. Two looks at the clock for each; a
server without a Meter makes none."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from netpoll._native.c cimport np_clock_ns
from netpoll._native.http.c cimport (
    NP_HTTP_FAULTS_COUNT, np_http_fault_of, np_http_method_name)

# Upper ends of the buckets: those that OpenTelemetry asks for, and two below for what a cache
# answers.
cdef int64_t BUCKETS_NS[METER_BUCKETS_COUNT]
BUCKETS_NS[:] = [
    100000, 1000000, 5000000, 10000000, 25000000, 50000000, 75000000, 100000000, 250000000,
    500000000, 750000000, 1000000000, 2500000000, 5000000000, 7500000000, 10000000000]


cdef class Meter:
    cdef int64_t begin(self) noexcept:
        """A request was read. Returns what end() wants to know; never 0."""
        self.begun_count += 1
        return np_clock_ns()

    cdef int end(self, uint8_t method, int status, int64_t *began_ns) noexcept:
        """The request that began then, if there is one (not 0), has ended. status: 0 when it got no
        answer."""
        cdef Series *series
        cdef int64_t duration_ns
        cdef int i = 0
        if not began_ns[0]:
            return 0
        duration_ns = np_clock_ns() - began_ns[0]
        began_ns[0] = 0
        series = self.find(method, status)
        while i < METER_BUCKETS_COUNT and duration_ns > BUCKETS_NS[i]:
            i += 1
        series.durations[i] += 1
        series.duration_ns += duration_ns
        self.ended_count += 1
        return 0

    cdef Series *find(self, uint8_t method, int status) noexcept:
        cdef uint8_t *known
        if not 0 <= status < METER_STATUSES_COUNT:
            return &self.series[0]
        known = &self.series_of[method][status]
        if not known[0] and self.series_last < METER_SERIES_COUNT - 1:
            self.series[self.series_last + 1].method = method
            self.series[self.series_last + 1].status = status
            self.series_last += 1
            known[0] = self.series_last
        return &self.series[known[0]]

    cdef int refused(self, int fault) noexcept:
        """A request has a fault: -NP_HTTP_E_..."""
        self.faults[-fault] += 1
        return 0

    def read(self):
        """All of it, in any thread: a dict that can be added up with those of other workers."""
        cdef Series *series
        cdef uint64_t ended_count = self.ended_count
        cdef int i, j
        ended = []
        for i in range(self.series_last + 1):
            series = &self.series[i]
            durations = [series.durations[j] for j in range(METER_BUCKETS_COUNT + 1)]
            if any(durations):
                name = np_http_method_name(series.method).decode()
                ended.append({
                    "method": name or None, "status": series.status, "durations": durations,
                    "duration_s": series.duration_ns / 1e9})
        refused = {}
        for i in range(NP_HTTP_FAULTS_COUNT):
            if self.faults[i]:
                reason = np_http_fault_of(i).name.decode().lower()
                refused[reason, np_http_fault_of(i).status] = self.faults[i]
        return {
            "ended": ended,
            "ends_s": [BUCKETS_NS[i] / 1e9 for i in range(METER_BUCKETS_COUNT)],
            "refused": refused,
            "active": max(0, <int64_t>(self.begun_count - ended_count)),
            "stalled": self.stalled_count,
        }
