# The seam of numbers.pyx.

cdef size_t whole_bytes(object limit) except? 0
cdef size_t doubled_bytes(object limit) except? 0
cdef tuple watermarks(object high, object low, object default_bytes)
