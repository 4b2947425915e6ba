# cython: language_level=3, freethreading_compatible=True
"""The head of a request as an application sees it: objects, made from where it was received."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from netpoll._native.c cimport PyObject, Py_DECREF, Py_INCREF
from netpoll._native.http.c cimport (
    NP_FIELDS_COUNT, NP_FIELD_AUTHORIZATION, NP_FIELD_COOKIE, NP_FIELD_OTHER, NP_HTTP_PATH_ENCODED,
    np_field_unquote, np_http1, np_http_field)
from netpoll._native.http.words cimport field_names
from netpoll._native.seal cimport seal_types


cdef object path_of(const np_http1 *request):
    """The path without percent signs. UTF-8; bytes that are not become U+FFFD."""
    cdef const uint8_t *at = request.base + request.path.at
    cdef Py_ssize_t size = request.path.bytes
    cdef int is_ascii
    if size == 0:
        return "/"
    if not request.flags & NP_HTTP_PATH_ENCODED:
        return PyUnicode_DecodeUTF8(<const char*>at, size, NULL)
    raw = PyBytes_FromStringAndSize(NULL, size)
    size = np_field_unquote(at, size, <uint8_t*>PyBytes_AS_STRING(raw), &is_ascii)
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(raw), size, "replace")


cdef class HeaderPairs:
    """(name, value) of each field as bytes, the name in lower case. What many requests of a worker
    repeat is made once, except what may be a secret."""

    def __dealloc__(self):
        cdef int i
        for i in range(NP_FIELDS_COUNT):
            if self.last[i] is not NULL:
                Py_DECREF(self.last[i])

    cdef list of(self, const np_http1 *request):
        cdef uint32_t i
        cdef list pairs = PyList_New(request.fields_count)
        for i in range(request.fields_count):
            pair = self.pair(request, &request.fields[i])
            Py_INCREF(<PyObject*>pair)
            PyList_SET_ITEM(pairs, i, pair)
        return pairs

    cdef object pair(self, const np_http1 *request, const np_http_field *field):
        cdef const char *value = <const char*>request.base + field.value_at
        cdef PyObject *last = self.last[field.id]
        if last is not NULL:
            known = (<tuple>last)[1]
            if <uint32_t>PyBytes_GET_SIZE(known) == field.value_bytes \
                    and memcmp(PyBytes_AS_STRING(known), value, field.value_bytes) == 0:
                return <object>last
        if field.id == NP_FIELD_OTHER:
            name = text_of(request, field.name_at, field.name_bytes).lower()
        else:
            name = <object>field_names[field.id]
        pair = (name, PyBytes_FromStringAndSize(value, field.value_bytes))
        if field.id not in (NP_FIELD_OTHER, NP_FIELD_AUTHORIZATION, NP_FIELD_COOKIE):
            Py_INCREF(<PyObject*>pair)
            self.last[field.id] = <PyObject*>pair
            if last is not NULL:
                Py_DECREF(last)
        return pair


seal_types(globals())
