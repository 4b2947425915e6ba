# cython: language_level=3, freethreading_compatible=True
"""The head of an answer: what the application says in it, checked, and what the server says."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy
from libc.time cimport time

from netpoll._native.c cimport PyObject, PyTuple_GET_ITEM
from netpoll._native.http.c cimport (
    NP_ANSWER_CHUNKED_BYTES, NP_ANSWER_CLOSE_BYTES, NP_ANSWER_DATE_BYTES,
    NP_ANSWER_FAULT_MAX_BYTES, NP_ANSWER_FIELD_EXTRA_BYTES, NP_ANSWER_LENGTH_MAX_BYTES,
    NP_ANSWER_STATUS_MAX_BYTES,
    NP_FIELD_CONNECTION, NP_FIELD_CONTENT_LENGTH, NP_FIELD_DATE, NP_FIELD_OTHER,
    NP_FIELD_TRANSFER_ENCODING, np_answer_check, np_answer_chunked, np_answer_close,
    np_answer_date, np_answer_end, np_answer_fault, np_answer_field, np_answer_length,
    np_answer_status, np_field_length, np_http_field_id)
from netpoll._native.seal cimport seal_types

cdef bytes KEEP_ALIVE_FIELD = b"connection: keep-alive\r\n"
# RFC 9110 7.8: in an answer that switches to WebSocket, or asks for another version of it.
cdef bytes SWITCH_FIELDS = b"connection: upgrade\r\nupgrade: websocket\r\n"


cdef tuple BYTES_LIKE = (bytes, bytearray, memoryview)


cdef list checked_fields(object fields, Fields *told):
    """The fields as a list of pairs of bytes that is nobody else's: what iterates over the
    application's objects may run code of theirs. Raises TypeError and ValueError for what is not
    a field."""
    cdef const uint8_t *name_at
    cdef const uint8_t *value_at
    cdef Py_ssize_t name_bytes, value_bytes
    cdef uint8_t field
    cdef list pairs = []
    told.bytes = 0
    told.length_bytes = -1
    told.has_date = told.has_server = told.closes = False
    if fields is None:
        return pairs
    for name, value in fields:
        if type(name) is not bytes or type(value) is not bytes:
            if not isinstance(name, BYTES_LIKE) or not isinstance(value, BYTES_LIKE):
                raise TypeError(
                    f"the name and the value of a field are bytes, not {name!r}: {value!r}")
            name, value = bytes(memoryview(name)), bytes(memoryview(value))
        name_bytes = PyBytes_GET_SIZE(name)
        value_bytes = PyBytes_GET_SIZE(value)
        name_at = <const uint8_t*>PyBytes_AS_STRING(name)
        value_at = <const uint8_t*>PyBytes_AS_STRING(value)
        if np_answer_check(name_at, name_bytes, value_at, value_bytes):
            raise ValueError(f"not a field of HTTP: {name!r}: {value!r}")
        field = np_http_field_id(name_at, name_bytes)
        if field == NP_FIELD_CONTENT_LENGTH:
            if told.length_bytes >= 0:
                raise ValueError("an answer has one Content-Length")
            if np_field_length(value_at, value_bytes, &told.length_bytes) < 0:
                raise ValueError(f"not a Content-Length: {value!r}")
            continue  # written with the server's own
        if field == NP_FIELD_CONNECTION:
            told.closes = told.closes or b"close" in value.lower()
        if field == NP_FIELD_CONNECTION or field == NP_FIELD_TRANSFER_ENCODING:
            continue  # of the hop (RFC 9110 7.6.1): the server's
        if field == NP_FIELD_DATE:
            told.has_date = True
        elif field == NP_FIELD_OTHER and name.lower() == b"server":
            told.has_server = True
        told.bytes += name_bytes + value_bytes + NP_ANSWER_FIELD_EXTRA_BYTES
        pairs.append((name, value))
    return pairs


cdef uint8_t *put_fields(uint8_t *at, list pairs) noexcept:
    """pairs: of checked_fields."""
    cdef PyObject *name
    cdef PyObject *value
    cdef Py_ssize_t i
    for i in range(PyList_GET_SIZE(pairs)):
        name = PyTuple_GET_ITEM(<object>PyList_GET_ITEM(pairs, i), 0)
        value = PyTuple_GET_ITEM(<object>PyList_GET_ITEM(pairs, i), 1)
        at = np_answer_field(
            at, <const uint8_t*>PyBytes_AS_STRING(<object>name), PyBytes_GET_SIZE(<object>name),
            <const uint8_t*>PyBytes_AS_STRING(<object>value), PyBytes_GET_SIZE(<object>value))
    return at


cdef inline uint8_t *put_text(uint8_t *at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef class HeadWriter:
    """Writes the heads of one worker's answers. server: the value of the field Server, or "".
    fields: more of each answer, pairs of bytes."""

    def __cinit__(self, str server not None, fields):
        cdef Fields told
        self.server_field = b"server: " + server.encode("latin-1") + b"\r\n" if server else b""
        pairs = checked_fields(fields, &told)
        if told.length_bytes >= 0:
            raise ValueError("Content-Length is a field of one answer, not of all")
        if told.has_server:
            self.server_field = b""
        self.has_date = told.has_date
        self.more_fields = b"".join([name + b": " + value + b"\r\n" for name, value in pairs])

    cdef size_t max_bytes(self, const Fields *told) noexcept:
        return (NP_ANSWER_STATUS_MAX_BYTES + told.bytes + PyBytes_GET_SIZE(self.server_field)
                + PyBytes_GET_SIZE(self.more_fields) + NP_ANSWER_DATE_BYTES
                + NP_ANSWER_LENGTH_MAX_BYTES + NP_ANSWER_CHUNKED_BYTES + NP_ANSWER_CLOSE_BYTES
                + PyBytes_GET_SIZE(KEEP_ALIVE_FIELD) + PyBytes_GET_SIZE(SWITCH_FIELDS) + 2)

    cdef uint8_t *put(self, uint8_t *at, int status, list pairs, const Fields *told,
                      const Framing *framing) noexcept:
        """pairs, told: of checked_fields. Returns the end of the head."""
        at = put_fields(np_answer_status(at, status), pairs)
        if not told.has_server:
            at = put_text(at, self.server_field)
        at = put_text(at, self.more_fields)
        if not told.has_date and not self.has_date:
            at = np_answer_date(at, &self.date, time(NULL))
        if framing.length_bytes >= 0:
            at = np_answer_length(at, framing.length_bytes)
        if framing.is_chunked:
            at = np_answer_chunked(at)
        if framing.offers_switch:
            at = put_text(at, SWITCH_FIELDS)
        if framing.closes:
            at = np_answer_close(at)
        elif framing.keeps_alive:
            at = put_text(at, KEEP_ALIVE_FIELD)
        return np_answer_end(at)

    cdef bytes fault(self, int fault, uint8_t method):
        """All of the answer to a request that has a fault."""
        cdef uint8_t memory[NP_ANSWER_FAULT_MAX_BYTES]
        cdef uint8_t *end = np_answer_fault(memory, fault, method, &self.date, time(NULL))
        return PyBytes_FromStringAndSize(<char*>memory, end - memory)


seal_types(globals())
