# cython: language_level=3, freethreading_compatible=True
"""The lines of an access log: made when an answer is over, and written later, many at once."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdio cimport sprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, strlen
from libc.time cimport time

from netpoll._native.c cimport np_clock_ns
from netpoll._native.http.c cimport NP_FIELD_REFERER, NP_FIELD_USER_AGENT, np_http1, np_http_field
from netpoll._native.http.request_head cimport text_of
from netpoll._native.limits cimport HTTP_LINES_BYTES
from netpoll._native.seal cimport seal_types
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection

import time as py_time

# The status of a request whose client was gone before there was an answer: nginx's number.
cdef int STATUS_GONE = 499
# What a line has beside the words of the request.
cdef size_t FRAME_BYTES = 256
# A byte of a request as "\u00ff".
cdef size_t ESCAPE_BYTES = 6

cdef dict FORMS = {"common": FORM_COMMON, "combined": FORM_COMBINED, "json": FORM_JSON}
cdef tuple MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# ---- pieces of lines ----------------------------------------------------------------------------

cdef inline char *put(char *at, const char *text) noexcept:
    cdef size_t size = strlen(text)
    memcpy(at, text, size)
    return at + size


cdef char *put_escaped(char *at, const char *text, size_t size, const char *number,
                       uint8_t least=32) noexcept:
    """What would end a field, or the line, is escaped; number: in front of two hexadecimal digits,
    for a byte that is no printable ASCII, or below `least`."""
    cdef const char *digits = "0123456789abcdef"
    cdef uint8_t byte
    cdef size_t i
    for i in range(size):
        byte = <uint8_t>text[i]
        if byte == c'"' or byte == c'\\':
            at[0] = c'\\'
            at[1] = <char>byte
            at += 2
        elif least <= byte < 127:
            at[0] = <char>byte
            at += 1
        else:
            at = put(at, number)
            at[0] = digits[byte >> 4]
            at[1] = digits[byte & 15]
            at += 2
    return at


cdef char *put_quoted(char *at, object text) noexcept:
    """bytes, as Apache writes them; "-" for None."""
    at = put(at, b' "')
    if text is None:
        at = put(at, b"-")
    else:
        at = put_escaped(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), b"\\x")
    return put(at, b'"')


cdef char *put_member(char *at, const char *name, const char *text, size_t size) noexcept:
    """`,"name":"text"` of a JSON object; NULL is null."""
    at = put(put(put(at, b',"'), name), b'":')
    if text is NULL:
        return put(at, b"null")
    return put(put_escaped(put(at, b'"'), text, size, b"\\u00"), b'"')


cdef char *put_text_member(char *at, const char *name, object text) noexcept:
    if text is None:
        return put_member(at, name, NULL, 0)
    return put_member(at, name, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef bytes line_of(const np_http1 *request):
    cdef int64_t start = request.method_name.at
    line = text_of(request, start, request.target.at + request.target.bytes - start)
    return line + (b" HTTP/1.1" if request.minor else b" HTTP/1.0")


# ---- the lines of a worker ----------------------------------------------------------------------

cdef class AccessLines:
    """write: a function that takes some lines, about once a second or when there are many.
    form: "common", "combined" or "json"."""

    def __cinit__(self, write not None, str form not None, Addresses addresses not None):
        self.write = write
        self.form = FORMS[form]
        self.addresses = addresses

    def __dealloc__(self):
        free(self.lines)

    cdef tuple begin(self, Connection face, const np_http1 *request, Forwarded forwarded):
        """What the line of a request will need of its head. request: NULL for a head that could
        not be read."""
        cdef const np_http_field *field
        cdef uint32_t i
        line = referer = agent = None
        if request is not NULL:
            line = line_of(request)
            if self.form != FORM_COMMON:
                for i in range(request.fields_count):
                    field = &request.fields[i]
                    if field.id == NP_FIELD_USER_AGENT:
                        agent = text_of(request, field.value_at, field.value_bytes)
                    elif field.id == NP_FIELD_REFERER:
                        referer = text_of(request, field.value_at, field.value_bytes)
        client = self.addresses.client(face)
        if forwarded is not None and request is not NULL:
            client = forwarded.told(request, client, None)[0]
        peer = (<str>client[0]).encode() if client is not None else b"-"
        if self.lines_bytes >= HTTP_LINES_BYTES and not self.is_called:
            self.is_called = True
            face.host.loop.call_soon(self.flush_now)  # what is written to may be anybody's code
        return peer, line, referer, agent, np_clock_ns()

    cdef int end(self, tuple begun, int status, int64_t sent_bytes) except -1:
        """status: 0 for a request that was not answered."""
        cdef int64_t taken_ns = np_clock_ns() - <int64_t>begun[4]
        cdef size_t need_bytes = FRAME_BYTES
        cdef char *lines
        cdef char *at
        cdef int i
        for i in range(4):
            if begun[i] is not None:
                need_bytes += ESCAPE_BYTES * PyBytes_GET_SIZE(begun[i])
        if self.room_bytes - self.lines_bytes < need_bytes:
            need_bytes += self.lines_bytes + self.lines_bytes // 2
            lines = <char*>realloc(self.lines, need_bytes)
            if lines is NULL:
                raise MemoryError
            self.lines = lines
            self.room_bytes = need_bytes
        self.look_at_clock()
        at = &self.lines[self.lines_bytes]
        status = status or STATUS_GONE
        if self.form == FORM_JSON:
            at = self.put_object(at, begun, status, sent_bytes, taken_ns)
        else:
            at = self.put_line(at, begun, status, sent_bytes)
        self.lines_bytes = at - self.lines
        return 0

    cdef char *put_line(self, char *at, tuple begun, int status, int64_t sent_bytes) except NULL:
        # Of a proxy's field it may be anything, and it is not quoted: it has no blank.
        at = put_escaped(at, PyBytes_AS_STRING(begun[0]), PyBytes_GET_SIZE(begun[0]), b"\\x", 33)
        at = put(at, b" - - [")
        at = put(put(at, PyBytes_AS_STRING(self.date)), b"]")
        at = put_quoted(at, begun[1])
        at += sprintf(at, b" %d %lld", status, <long long>sent_bytes)
        if self.form == FORM_COMBINED:
            at = put_quoted(put_quoted(at, begun[2]), begun[3])
        return put(at, b"\n")

    cdef char *put_object(self, char *at, tuple begun, int status, int64_t sent_bytes,
                          int64_t taken_ns) except NULL:
        cdef const char *line
        cdef const char *target
        cdef const char *protocol
        cdef size_t line_bytes
        at = put(put(put(at, b'{"time":"'), PyBytes_AS_STRING(self.date)), b'"')
        at = put_text_member(at, b"peer", begun[0])
        if begun[1] is None:
            at = put(at, b',"method":null,"target":null,"protocol":null')
        else:  # it has two spaces: the reader of requests has seen to that
            line = PyBytes_AS_STRING(begun[1])
            line_bytes = PyBytes_GET_SIZE(begun[1])
            target = <const char*>memchr(line, c' ', line_bytes) + 1
            protocol = line + line_bytes - strlen(b"HTTP/1.1")
            at = put_member(at, b"method", line, target - line - 1)
            at = put_member(at, b"target", target, protocol - target - 1)
            at = put_member(at, b"protocol", protocol, strlen(b"HTTP/1.1"))
        # A float would be written in the locale's way.
        at += sprintf(at, b',"status":%d,"bytes":%lld,"milliseconds":%lld.%03lld', status,
                      <long long>sent_bytes, <long long>(taken_ns // 1000000),
                      <long long>(taken_ns // 1000 % 1000))
        at = put_text_member(at, b"referer", begun[2])
        return put(put_text_member(at, b"user_agent", begun[3]), b"}\n")

    cdef int look_at_clock(self) except -1:
        cdef int64_t second = time(NULL)
        if second == self.second:
            return 0
        year, month, day, hour, minute, of_minute, *_ = py_time.gmtime(second)
        clock = f"{hour:02}:{minute:02}:{of_minute:02}"
        if self.form == FORM_JSON:
            self.date = f"{year}-{month:02}-{day:02}T{clock}Z".encode()
        else:
            self.date = f"{day:02}/{MONTHS[month - 1]}/{year}:{clock} +0000".encode()
        self.second = second
        return 0

    def flush_now(self):
        self.is_called = False
        self.flush()

    cdef int flush(self) except -1:
        if self.lines_bytes:
            lines = PyBytes_FromStringAndSize(self.lines, self.lines_bytes)
            self.lines_bytes = 0
            self.write(lines)
        return 0


seal_types(globals())
