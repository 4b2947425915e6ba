# The seam of http/words.pyx: one object for each word that HTTP uses again and again.

from libc.stdint cimport uint8_t

from netpoll._native.c cimport PyObject
from netpoll._native.http.c cimport NP_FIELDS_COUNT, NP_HTTP_METHODS_COUNT


cdef PyObject *method_names[NP_HTTP_METHODS_COUNT]  # str; NULL for NP_HTTP_OTHER
cdef PyObject *field_names[NP_FIELDS_COUNT]         # bytes, lower case; NULL for NP_FIELD_OTHER

cdef object method_name(uint8_t method, const uint8_t *token, Py_ssize_t size)
