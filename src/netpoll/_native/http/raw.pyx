# cython: language_level=3, freethreading_compatible=True
"""The raw interface: a function that gets a Request and returns a Response.

The shortest way from a request to its answer, and the form for programs that embed the server. A
plain function is called when the whole request is there; an `async def` is called with the head,
and reads the body itself.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netpoll._native.c cimport (
    NP_CONN_EOF, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyObject,
    PyObject_CallOneArg, Py_DECREF)
from netpoll._native.failing cimport reraise
from netpoll._native.http.c cimport (
    NP_FIELD_OTHER, NP_HTTP_WEBSOCKET, np_http1, np_http_field, np_http_field_id)
from netpoll._native.http.raw_websocket cimport WebSocket
from netpoll._native.http.request_head cimport path_of
from netpoll._native.http.request_task cimport RequestTask, is_of_the_end, make_task
from netpoll._native.http.served_file cimport (
    FileCache, FileParts, ServedFile, answer_with_file, answer_with_parts, is_plain_file,
    span_of)
from netpoll._native.http.trailers cimport has_trailers, last_chunk, may_have_trailers
from netpoll._native.http.websocket cimport Handshake, SocketRules, prepare, read_handshake
from netpoll._native.http.wire cimport Application, Exchange, Wire
from netpoll._native.http.words cimport method_name
from netpoll._native.limits cimport HTTP_PENDING_MAX_BYTES
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.seal cimport seal_types
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport Host

import io
import json as py_json
import os
from asyncio import CancelledError


PART_BYTES = HTTP_PENDING_MAX_BYTES


cdef class Response:
    """An answer.

    body: bytes, or a str, which is sent as UTF-8; or an iterable of bytes, sent as it comes, with
        "chunked" framing unless the headers have a content-length; or a path, or a binary file,
        sent from its position on and closed: by sendfile(2), or by read() where that gives
        something else than the file has, as of a GzipFile, or there is none, as of a BytesIO.
    status: three digits. headers: pairs of str or bytes, or a mapping.
    content_type: of the body; text/plain in UTF-8 for a str whose headers have none, else none.
    trailers: fields behind the body, as headers, or a function that is called at its end and
        gives them. For peers that take them (TE: trailers), and not behind a file or a body with a
        content-length; else nobody sees them, and the function is not called.

    Raises ValueError for a status or a field that HTTP does not have, when it is sent.
    """

    cdef public object body
    cdef public int status
    cdef public list headers
    cdef public object trailers

    def __cinit__(self, body=b"", int status=200, headers=None, str content_type=None,
                  trailers=None):
        self.status = status
        self.trailers = trailers
        self.headers = pairs_of(headers) if headers is not None else []
        if isinstance(body, str):
            body = (<str>body).encode()
            if not content_type and not any(
                    [(<bytes>name).lower() == b"content-type" for name, _ in self.headers]):
                content_type = "text/plain; charset=utf-8"
        self.body = body
        if content_type is not None:
            self.headers.append((b"content-type", octets(content_type)))

    def __repr__(self):
        return f"<netpoll.http.Response {self.status}>"


cdef int end_answer(Wire wire, Response response) except -1:
    trailers = response.trailers
    if trailers is not None and has_trailers(wire):
        wire.trailers = last_chunk(pairs_of(trailers() if callable(trailers) else trailers))
    return wire.end_answer()


cdef list pairs_of(object headers):
    """headers: pairs of str or bytes, or a mapping."""
    return [(octets(name), octets(value))
            for name, value in (headers.items() if hasattr(headers, "items") else headers)]


cdef bytes octets(object text):
    if isinstance(text, bytes):
        return text if type(text) is bytes else bytes(text)
    if isinstance(text, str):
        return (<str>text).encode("latin-1")
    raise TypeError(f"the name and the value of a header are str or bytes, not {text!r}")


cdef class Request:
    """A request: what its head says, and its body.

    Everything is decoded when it is asked for. A request belongs to its connection's thread; it may
    be kept after the answer.
    """

    cdef Wire wire              # None: answered, or its connection is over
    cdef Host host              # of the connection. Only its thread may look at the wire
    cdef np_http1 head          # its memory is `memory`
    cdef uint8_t *memory
    cdef list parts             # of the body, read and not given to anybody yet
    cdef bytes whole_body       # when it was read whole
    cdef public object state
    cdef bytes request_id       # None: the server has no request_id_header

    def __dealloc__(self):
        free(self.memory)

    cdef int take(self, Wire wire) except -1:
        """Keeps the head: one copy of some hundred bytes, so that the receive buffer can go."""
        cdef size_t fields_bytes = wire.request.fields_count * sizeof(np_http_field)
        self.memory = <uint8_t*>malloc(fields_bytes + wire.request.head_bytes)
        if self.memory is NULL:
            raise MemoryError
        self.wire = wire
        self.host = wire.face.host
        self.request_id = wire.request_id
        self.parts = []
        self.head = wire.request
        memcpy(self.memory, wire.request.fields, fields_bytes)
        memcpy(self.memory + fields_bytes, wire.request.base, wire.request.head_bytes)
        self.head.fields = <np_http_field*>self.memory
        self.head.base = self.memory + fields_bytes
        self.head.own = NULL
        return wire.take_head()

    cdef str latin(self, uint32_t at, uint32_t size):
        return PyUnicode_DecodeLatin1(<const char*>self.head.base + at, size, NULL)

    def __repr__(self):
        return f"<netpoll.http.Request {self.method} {self.target}>"

    @property
    def method(self):
        return method_name(self.head.method, self.head.base + self.head.method_name.at,
                           self.head.method_name.bytes)

    @property
    def id(self):
        """What the server's request_id_header has, or was given; None without that option."""
        return self.request_id.decode("latin-1") if self.request_id is not None else None

    @property
    def target(self):
        """As it was sent: "/path?query", as a rule."""
        return self.latin(self.head.target.at, self.head.target.bytes)

    @property
    def path(self):
        """Without percent signs. UTF-8; bytes that are not become U+FFFD."""
        return path_of(&self.head)

    @property
    def query(self):
        """What stands behind the first "?", as it was sent."""
        return self.latin(self.head.query.at, self.head.query.bytes)

    @property
    def version(self):
        return "1.1" if self.head.minor else "1.0"

    @property
    def headers(self):
        """All fields, (name in lower case, value) as str, in the order in which they were sent."""
        cdef np_http_field *field
        cdef uint32_t i
        pairs = []
        for i in range(self.head.fields_count):
            field = &self.head.fields[i]
            pairs.append((self.latin(field.name_at, field.name_bytes).lower(),
                          self.latin(field.value_at, field.value_bytes)))
        return pairs

    def header(self, str name not None, default=None):
        """The value of the first field with this name, in any case; the default without one."""
        cdef bytes wanted = name.lower().encode("latin-1", "replace")
        cdef np_http_field *field
        cdef const uint8_t *at = <const uint8_t*><const char*>wanted
        cdef uint8_t number = np_http_field_id(at, len(wanted))
        cdef uint32_t i
        for i in range(self.head.fields_count):
            field = &self.head.fields[i]
            if field.id != number:
                continue
            if number != NP_FIELD_OTHER or PyBytes_FromStringAndSize(
                    <const char*>self.head.base + field.name_at,
                    field.name_bytes).lower() == wanted:
                return self.latin(field.value_at, field.value_bytes)
        return default

    @property
    def client(self):
        """(host, port) of the peer, or of whom a proxy speaks for; None over a Unix socket, and
        when the peer has gone."""
        self.host.check_thread()
        cdef Wire wire = self.wire
        cdef Connection face = wire.face if wire is not None else None
        cdef Addresses addresses
        if face is None or face.conn is NULL:
            return None
        addresses = wire.service.addresses
        client = addresses.client(face)
        if wire.service.forwarded is not None:
            client = wire.service.forwarded.told(&self.head, client, None)[0]
        return client

    @property
    def body(self):
        """All of the body. RuntimeError in an `async def` that has not awaited read()."""
        if self.whole_body is None:
            raise RuntimeError("the body has not been read: await request.read()")
        return self.whole_body

    def json(self):
        """The body, read as JSON. ValueError when it is none."""
        return py_json.loads(self.body)

    @property
    def is_websocket(self):
        """It asks for a WebSocket: websocket() may be called, or an ordinary answer given."""
        return self.head.flags & NP_HTTP_WEBSOCKET != 0

    @property
    def subprotocols(self):
        """What the peer can speak through a WebSocket, best first."""
        return read_handshake(&self.head).subprotocols

    def websocket(self, str subprotocol=None, headers=()):
        """Accepts the WebSocket that this request asks for, in an `async def` handler, and gives
        it. What the handler returns is not sent then.

        subprotocol: one of `subprotocols`. headers: of the answer, beside those of the handshake.
        Raises ValueError when none is asked for, and for headers that cannot be sent;
        ConnectionAbortedError when the request's handshake has a fault, which is answered.
        """
        self.host.check_thread()
        cdef Wire wire = self.wire
        cdef RawExchange exchange
        cdef Handshake handshake
        cdef WebSocket socket
        if not self.is_websocket:
            raise ValueError("this request does not ask for a WebSocket")
        if wire is None or wire.face is None:
            raise ConnectionResetError("the request is over")
        if wire.exchange is None:
            raise RuntimeError("a WebSocket needs an 'async def' handler")
        exchange = <RawExchange?>wire.exchange
        pairs = pairs_of(headers)
        if self.wire is not wire:  # reading the headers has run code
            raise ConnectionResetError("the request is over")
        handshake = read_handshake(&self.head)
        if handshake.status:
            self.wire = exchange.wire = None
            exchange.is_refused = True
            handshake.refuse(wire)
            raise ConnectionAbortedError("the handshake of this WebSocket has a fault")
        socket = WebSocket.__new__(WebSocket)
        prepare(socket, wire, exchange.application.rules, handshake, exchange.application.report)
        exchange.socket = socket
        self.wire = exchange.wire = None
        socket.subprotocol = subprotocol
        socket.accept(subprotocol, pairs)
        return socket

    def read(self):
        """Awaits all of the body. ConnectionError when the peer does not send all of it."""
        cdef BodyRead wait = BodyRead.__new__(BodyRead)
        wait.request = self
        wait.wants_all = True
        return wait

    def read_some(self):
        """Awaits the next bytes of the body; b"" at its end."""
        cdef BodyRead wait = BodyRead.__new__(BodyRead)
        wait.request = self
        return wait

    def __aiter__(self):
        """The body in parts, as they come."""
        return self

    def __anext__(self):
        cdef BodyRead wait = BodyRead.__new__(BodyRead)
        wait.request = self
        wait.iterates = True
        return wait


cdef class BodyRead(Awaitable):
    cdef Request request
    cdef bint wants_all, iterates

    cdef object step(self):
        self.request.host.check_thread()
        cdef Wire wire = self.request.wire
        cdef RawExchange exchange
        if wire is None or wire.face is None:
            raise ConnectionResetError("the request is over: its body cannot be read any more")
        if self.request.whole_body is not None:
            self.is_done = True
            if self.wants_all:
                return self.request.whole_body
            if self.iterates:
                raise StopAsyncIteration
            return b""
        if wire.exchange is None:
            raise ConnectionResetError("the request is answered: its body cannot be read any more")
        exchange = <RawExchange>wire.exchange
        if exchange.waiting is not None and exchange.waiting is not self:
            raise RuntimeError("another task is reading the body of this request")
        exchange.waiting = None
        wire.say_continue()
        if not wire.has_all():
            data = wire.read_body()
            if data is None:
                raise ConnectionAbortedError("the body of the request has a fault")
            if data:
                self.request.parts.append(data)
        if wire.has_all() if self.wants_all else wire.has_all() or self.request.parts:
            self.is_done = True
            data = b"".join(self.request.parts)
            self.request.parts = []
            if self.wants_all:
                self.request.whole_body = data
            elif self.iterates and not data:
                raise StopAsyncIteration
            return data
        if wire.face is None or wire.face.conn.flags & NP_CONN_EOF:
            raise ConnectionResetError("the peer has ended the stream within the body")
        exchange.waiting = self
        wire.wants_body = True
        return self.wait_on(wire.face.host.loop)

    cdef int abandon(self) except -1:
        if not self.request.host.is_its_thread():
            return 0  # refused there
        cdef Wire wire = self.request.wire
        cdef RawExchange exchange
        if wire is not None and wire.exchange is not None:
            exchange = <RawExchange>wire.exchange
            if exchange.waiting is self:
                exchange.waiting = None
                wire.wants_body = False
        return 0


cdef class RawApplication(Application):
    """handler: the function. report(message, error): tells of one that failed. rules: of
    WebSockets."""

    cdef object handler, report
    cdef FileCache files
    cdef SocketRules rules
    cdef bint is_async

    def __cinit__(self, handler, bint is_async, report, SocketRules rules not None):
        self.handler = handler
        self.rules = rules
        self.is_async = is_async
        self.files = FileCache()
        self.report = report

    cdef int begin(self, Wire wire) except -1:
        cdef Request request = Request.__new__(Request)
        cdef RawExchange exchange
        request.take(wire)
        if not self.is_async and wire.has_all():
            request.whole_body = b""
            return self.call(wire, request)
        exchange = self.exchange_of(wire, request)
        if not self.is_async:
            exchange.collects = True
            wire.wants_body = True
            wire.say_continue()
            return exchange.body_arrived()
        exchange.task = make_task(exchange, wire.face, exchange.serve())
        exchange.task.run()
        return 0

    cdef RawExchange exchange_of(self, Wire wire, Request request):
        cdef RawExchange exchange = RawExchange.__new__(RawExchange)
        exchange.wire = wire
        exchange.host = request.host
        exchange.application = self
        exchange.request = request
        wire.exchange = exchange
        return exchange

    cdef int call(self, Wire wire, Request request) except -1:
        """A plain function, with the whole request, in a context of its own."""
        cdef PyObject *result
        context = PyContext_CopyCurrent()
        PyContext_Enter(<PyObject*>context)
        try:
            result = PyObject_CallOneArg(<PyObject*>self.handler, <PyObject*>request)
            if result is NULL:
                reraise()
            response = <object>result
            Py_DECREF(result)
            self.answer(wire, request, response)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.failed(wire, exc)
        finally:
            PyContext_Exit(<PyObject*>context)
            request.wire = None
        return 0

    cdef int failed(self, Wire wire, object error) except -1:
        self.report("the handler failed", error)
        if wire.face is None or wire.is_done:
            return 0
        wire.exchange = None
        return wire.fail()

    cdef int answer(self, Wire wire, Request request, object response) except -1:
        cdef RawExchange exchange
        if wire.face is None:
            return 0
        if type(response) is bytes:
            return wire.write_whole(200, None, response)
        if isinstance(response, (bytes, str)):
            response = Response(response)
        if not isinstance(response, Response):
            raise TypeError(f"a handler returns a Response, bytes or a str, not {response!r}")
        body = (<Response>response).body
        if isinstance(body, str):
            body = (<str>body).encode()
        if isinstance(body, (bytes, bytearray, memoryview)):
            if (<Response>response).trailers is not None \
                    and may_have_trailers(wire, (<Response>response).status):
                wire.write_head((<Response>response).status, (<Response>response).headers, -1)
                wire.write_data(body)
                return end_answer(wire, response)
            return wire.write_whole((<Response>response).status, (<Response>response).headers,
                                    body if type(body) is bytes else bytes(body))
        if isinstance(body, os.PathLike):
            body = self.files.find(body)
        if type(body) is ServedFile:
            return answer_with_file(wire, (<Response>response).status,
                                    (<Response>response).headers, body)
        if type(body) is FileParts:
            return answer_with_parts(wire, (<Response>response).status,
                                     (<Response>response).headers, body)
        check_body(body)
        if is_file(body):
            return self.answer_file(wire, response, body)
        # In parts: a coroutine, which waits while the peer does not take them.
        exchange = self.exchange_of(wire, request)
        exchange.task = make_task(exchange, wire.face, exchange.send_parts(response))
        exchange.task.run()
        return 0

    cdef int answer_file(self, Wire wire, Response response, object file) except -1:
        cdef int64_t start, size
        with file:
            start = file.tell()
            size = max(0, os.fstat(file.fileno()).st_size - start)
            wire.write_head(response.status, response.headers, size)
            wire.write_span(span_of(file.fileno()), start, size)
        return wire.end_answer()


cdef int check_body(object body) except -1:
    """What is to be sent in parts, or as a file, before the head of its answer is."""
    if hasattr(body, "encoding") and hasattr(body, "read"):
        raise TypeError(f"a file is sent as it is: open it in binary mode, not as text: {body!r}")
    if not (hasattr(body, "__iter__") or hasattr(body, "__aiter__") or hasattr(body, "fileno")):
        raise TypeError(f"the body of an answer is bytes, a str, an iterable of bytes, a path or "
                        f"a file, not {body!r}")
    return 0


cdef bint is_file(object body) except -1:
    """sendfile(2) sends what read() gives."""
    return hasattr(body, "fileno") and is_plain_file(body)


cdef class RawExchange(Exchange):
    cdef RawApplication application
    cdef Request request
    cdef RequestTask task
    cdef bint collects          # the whole body, for a plain function
    cdef BodyRead waiting
    cdef WebSocket socket       # that the request became, or None
    cdef bint is_refused        # the handshake of one had a fault

    async def serve(self):
        """An `async def` handler, and the sending of what it returns."""
        await self.send_parts(await self.application.handler(self.request))

    async def send_parts(self, response):
        body = (<Response>response).body if isinstance(response, Response) else response
        if self.begin_answer(response, body):
            return
        if self.wire is not None and not self.wire.has_body:
            if isinstance(body, io.IOBase):
                body.close()  # nobody sees its parts; those of an iterable may have no end
        elif hasattr(body, "__aiter__"):
            async for data in body:
                await self.write(data)
        elif isinstance(body, io.IOBase):
            with body:
                data = body.read(PART_BYTES)
                while data:
                    await self.write(data)
                    data = body.read(PART_BYTES)
        else:
            for data in body:
                await self.write(data)
        if self.wire is not None:
            end_answer(self.wire, response)

    cdef bint begin_answer(self, object response, object body) except -1:
        """True: that was all of it."""
        cdef Wire wire = self.wire
        if wire is None:
            return True
        if not isinstance(response, Response) or is_file(body) \
                or isinstance(body, (bytes, str, bytearray, memoryview, os.PathLike, FileParts)):
            self.application.answer(wire, self.request, response)
            return True
        check_body(body)
        wire.write_head((<Response>response).status, (<Response>response).headers, -1)
        return False

    async def write(self, data):
        """A part of the body; waits while the peer does not take it."""
        wait = self.write_now(data)
        if wait is not None:
            await wait

    cdef object write_now(self, object data):
        cdef Wire wire = self.wire
        if wire is None:
            raise ConnectionResetError("the client has closed the connection")
        wire.write_data(data)
        return wire.room()

    cdef int body_arrived(self) except -1:
        cdef Wire wire = self.wire
        cdef BodyRead waiting = self.waiting
        if not self.collects:
            self.waiting = None
            wire.wants_body = False
            return waiting.resume() if waiting is not None else 0
        data = wire.read_body()
        if data is None:
            return 0
        self.request.parts.append(data)
        if wire.has_all():
            self.request.whole_body = b"".join(self.request.parts)
            self.request.parts = []
            self.collects = False
            wire.exchange = None
            self.application.call(wire, self.request)
        return 0

    cdef int disconnected(self) except -1:
        cdef BodyRead waiting = self.waiting
        cdef Wire wire = self.wire
        self.waiting = None
        if wire is None:
            self.request.wire = None
        elif self.collects:
            wire.abort()  # the rest of the body will not come
        return waiting.resume() if waiting is not None else 0

    cdef int finished(self, object error) except -1:
        cdef Wire wire = self.wire
        cdef BodyRead waiting = self.waiting
        self.wire = self.request.wire = self.task = self.waiting = None
        if waiting is not None:
            waiting.resume()  # of another task: it hears that the request is over
        if self.socket is not None:
            return self.socket.ended(error, "handler")
        if wire is not None and wire.is_refused \
                or self.is_refused and isinstance(error, ConnectionAbortedError):
            return 0  # for what the peer did, and it was told
        if error is not None and not isinstance(error, CancelledError) \
                and not (is_gone(wire) and is_of_the_end(error)):
            if wire is None:
                self.application.report("the handler failed", error)
                return 0
            return self.application.failed(wire, error)
        if wire is not None and not wire.is_done:
            return wire.fail() if isinstance(error, CancelledError) else wire.abort()
        return 0


cdef bint is_gone(Wire wire) noexcept:
    """The peer sends no more, or the connection is over."""
    return wire is None or wire.face is None or wire.face.conn is NULL \
        or wire.face.conn.flags & NP_CONN_EOF != 0


install_awaitable_slots(BodyRead, "Request.read")
seal_types(globals(), (RawApplication, Response))
