# cython: language_level=3, freethreading_compatible=True
"""Counts a worker's requests, for those who watch a server. Two looks at the clock for each; a
server without a Meter makes none."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from netpoll._native.c cimport np_clock_ns
from netpoll._native.http.c cimport (
    NP_HTTP_FAULTS_COUNT, NP_HTTP_METHODS_COUNT, np_http_fault_of, np_http_method_name)

# Upper ends of the buckets: those of Prometheus' clients, and two below for what a cache answers.
cdef int64_t BUCKETS_NS[METER_BUCKETS_COUNT]
BUCKETS_NS[:] = [
    100000, 1000000, 5000000, 10000000, 25000000, 50000000, 75000000, 100000000, 250000000,
    500000000, 1000000000, 2500000000, 5000000000, 10000000000]

cdef int64_t TICK_NS = 1000000000


cdef class Meter:
    cdef int64_t begin(self) noexcept:
        """A request was read. Returns what end() wants to know; never 0."""
        self.begun_count += 1
        return np_clock_ns()

    cdef int end(self, uint8_t method, int status, int64_t *began_ns) noexcept:
        """The request that began then, if there is one (not 0), has ended. status: 0 when it got no
        answer."""
        cdef int64_t duration_ns
        cdef int i = 0
        if not began_ns[0]:
            return 0
        duration_ns = np_clock_ns() - began_ns[0]
        began_ns[0] = 0
        self.ended[method][status // 100 if status < 600 else 0] += 1
        while i < METER_BUCKETS_COUNT and duration_ns > BUCKETS_NS[i]:
            i += 1
        self.durations[i] += 1
        self.duration_ns += duration_ns
        return 0

    cdef int refused(self, int fault) noexcept:
        """A request has a fault: -NP_HTTP_E_..."""
        self.faults[-fault] += 1
        return 0

    cdef int tick(self) noexcept:
        """Once a second, by a timer of the loop."""
        cdef int64_t now = np_clock_ns()
        if self.tick_ns:
            self.lag_ns = max(0, now - self.tick_ns - TICK_NS)
        self.tick_ns = now
        return 0

    def read(self):
        """All of it, in any thread: a dict that can be added up with those of other workers."""
        cdef uint64_t ended_count = 0
        cdef int i, j
        answers = {}
        for i in range(NP_HTTP_METHODS_COUNT):
            for j in range(METER_CLASSES_COUNT):
                ended_count += self.ended[i][j]
                if self.ended[i][j]:
                    name = np_http_method_name(<uint8_t>i)
                    method = name.decode() if i else "other"
                    answers[method, f"{j}xx" if j else "none"] = self.ended[i][j]
        refused = {}
        for i in range(NP_HTTP_FAULTS_COUNT):
            if self.faults[i]:
                reason = np_http_fault_of(i).name.decode().lower()
                refused[reason, str(np_http_fault_of(i).status)] = self.faults[i]
        return {
            "answers": answers,
            "refused": refused,
            "in_flight": max(0, <int64_t>(self.begun_count - ended_count)),
            "durations": [(BUCKETS_NS[i] / 1e9, self.durations[i])
                          for i in range(METER_BUCKETS_COUNT)],
            "durations_more": self.durations[METER_BUCKETS_COUNT],
            "duration_s": self.duration_ns / 1e9,
            "stalled": self.stalled_count,
            "lag_s": self.lag_ns / 1e9,
        }
