# The seam of http/request_limits.pyx.

from netpoll._native.http.c cimport np_http_limits

cdef int ticks_of(object timeout_s) except -1
cdef int set_limits(np_http_limits *limits, dict values) except -1
