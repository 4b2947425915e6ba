# The seam of seal.pyx.

cdef int seal_types(dict names, tuple others=*) except -1
