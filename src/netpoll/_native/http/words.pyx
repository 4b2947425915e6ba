# cython: language_level=3, freethreading_compatible=True
"""One object for each word that HTTP uses again and again: methods and well-known field names.

The reader of requests gives these a number (np_http.h). Here the number leads to the object that
applications see, which is made once.
"""

from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t

from netpoll._native.c cimport PyObject, Py_INCREF
from netpoll._native.http.c cimport (
    NP_FIELDS_COUNT, NP_HTTP_METHODS_COUNT, np_http_field_name, np_http_method_name)

import sys


cdef object method_name(uint8_t method, const uint8_t *token, Py_ssize_t size):
    if method_names[method] is not NULL:
        return <object>method_names[method]
    return PyUnicode_DecodeLatin1(<const char*>token, size, NULL)


cdef int make_words() except -1:
    """The objects live as long as the process: others compare them by their address."""
    cdef int i
    for i in range(1, NP_HTTP_METHODS_COUNT):
        name = sys.intern(np_http_method_name(<uint8_t>i).decode())
        Py_INCREF(<PyObject*>name)
        method_names[i] = <PyObject*>name
    for i in range(1, NP_FIELDS_COUNT):
        field = <bytes>np_http_field_name(<uint8_t>i)
        Py_INCREF(<PyObject*>field)
        field_names[i] = <PyObject*>field
    return 0


make_words()
