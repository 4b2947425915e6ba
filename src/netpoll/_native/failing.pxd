# How a negative errno, or an exception of the C API, becomes an exception of the caller's.

from libc.string cimport strerror


cdef inline object os_error(ptrdiff_t err, str doing=None):
    """The OSError, or the subclass of it, for errno or -errno. doing: what failed."""
    cdef int number = <int>(-err if err < 0 else err)
    text = strerror(number).decode()
    return OSError(number, text if doing is None else f"{text} ({doing})")


cdef inline int reraise() except -1:
    """The C API has set an exception: hands it to Cython's error return."""
    return -1
