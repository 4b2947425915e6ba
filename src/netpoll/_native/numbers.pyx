# cython: language_level=3, freethreading_compatible=True
"""Limits that a program sets, as machine words.

asyncio keeps whatever number it is given and compares with it: ints of any size, floats, infinity,
fractions. Here a number becomes the word with which every comparison of a size comes out the same.
"""

from libc.stdint cimport SIZE_MAX

import math


cdef size_t whole_bytes(object limit) except? 0:
    """For `size > limit` and `size <= limit`, whatever the number; not a number: SIZE_MAX."""
    if type(limit) is not int:
        try:
            limit = math.floor(limit)
        except (OverflowError, ValueError):  # infinity; not a number: `size > limit` never holds
            return SIZE_MAX
    return min(limit, SIZE_MAX)


cdef size_t doubled_bytes(object limit) except? 0:
    """Of 2 * limit; half of it, rounded down, is whole_bytes(limit) up to SIZE_MAX // 2."""
    return whole_bytes(2 * limit)


cdef tuple watermarks(object high, object low, object default_bytes):
    """As transport.set_write_buffer_limits() completes them. ValueError where it raises that."""
    if high is None:
        high = default_bytes if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return high, low
