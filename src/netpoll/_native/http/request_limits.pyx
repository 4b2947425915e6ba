# cython: language_level=3, freethreading_compatible=True
"""The limits of a request that a program sets, as the reader of requests counts with them."""

from libc.stdint cimport INT64_MAX

from netpoll._native.http.c cimport np_http_default_limits, np_http_limits


cdef int ticks_of(object timeout_s) except -1:
    """0: none. Any number of seconds is one of ticks, at most 34 years."""
    return 0 if timeout_s is None else int(max(1, min(timeout_s, 1 << 30)))


cdef int set_limits(np_http_limits *limits, dict values) except -1:
    """values: by name; those that are not there stay. Raises ValueError and TypeError."""
    for name, value in values.items():
        if name == "body_max_bytes":
            limits.body_max_bytes = min(counted(name, value), INT64_MAX)
            continue
        if counted(name, value) > 1 << 30:  # the places in a head are 32-bit numbers
            raise ValueError(f"{name} is at most 2**30, not {value!r}")
        if name == "line_max_bytes":
            limits.line_max_bytes = value
        elif name == "head_max_bytes":
            limits.head_max_bytes = value
        elif name == "fields_max_count":
            limits.fields_max_count = value
        else:
            raise TypeError(f"no limit has the name {name!r}")
    return 0


cdef object counted(object name, object value):
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be positive, not {value!r}")
    return value


def check_request_limits(dict values not None):
    """Raises what set_limits raises."""
    cdef np_http_limits limits = np_http_default_limits()
    set_limits(&limits, values)
