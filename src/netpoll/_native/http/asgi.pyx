# cython: language_level=3, freethreading_compatible=True
"""ASGI: an application's coroutine, driven by the bytes of its request.

    head read -> scope -> the coroutine runs -> send() writes what it is told into the connection

https://asgi.readthedocs.io/en/latest/specs/www.html, version 2.5. send() does its work when it is
called, and gives an awaitable that is ready, except when the peer does not take the answer.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint8_t

from netpoll._native.c cimport NP_CONN_EOF
from netpoll._native.http.asgi_websocket cimport AsgiSocket
from netpoll._native.http.c cimport NP_HTTP_WEBSOCKET, np_answer_check, np_http1
from netpoll._native.http.request_head cimport path_of, text_of
from netpoll._native.http.request_task cimport RequestTask, is_of_the_end, make_task
from netpoll._native.http.served_file cimport (
    FileCache, ServedFile, answer_with_file, span_of, write_part)
from netpoll._native.http.trailers cimport has_trailers, last_chunk, may_have_trailers
from netpoll._native.http.wire cimport Application, Exchange, Wire
from netpoll._native.http.websocket cimport Handshake, SocketRules, prepare, read_handshake
from netpoll._native.http.words cimport method_name
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.ready cimport READY
from netpoll._native.seal cimport seal_types
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection

import inspect
import os
from asyncio import CancelledError, sleep
from urllib.parse import quote

cdef dict ASGI = {"version": "3.0", "spec_version": "2.5"}
cdef tuple EXTENSIONS = ("http.response.pathsend", "http.response.zerocopysend",
                         "http.response.early_hint", "http.response.trailers")
cdef tuple SOCKET_EXTENSIONS = ("websocket.http.response",)


cdef bint makes_coroutines(object app) except -1:
    """It is an `async def`, or an object whose __call__ is one."""
    function = app if inspect.isroutine(app) else getattr(type(app), "__call__", None)
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return isinstance(flags, int) and flags & inspect.CO_COROUTINE != 0


cdef class AsgiApplication(Application):
    """app: the ASGI callable. state: what lifespan.startup has left, copied for each request.
    report(message, error): tells of an application that failed. rules: of WebSockets.
    describe_tls(ssl_object, certificate): what the extension "tls" says; the server's certificate
    in DER, or None."""

    cdef object app, report, describe_tls
    cdef bint makes_coroutines  # calling app does nothing but make one
    cdef dict tls_known         # place of a connection -> (its serial, what was described)
    cdef dict state
    cdef dict template          # of the scope
    cdef str root_path
    cdef bytes raw_root_path
    cdef FileCache files        # of pathsend
    cdef SocketRules rules

    def __cinit__(self, app, dict state or None, str scheme not None, str root_path not None,
                  report, SocketRules rules not None, describe_tls=None):
        self.app = app
        self.makes_coroutines = makes_coroutines(app)
        self.describe_tls = describe_tls
        self.tls_known = {}
        self.rules = rules
        self.report = report
        self.files = FileCache()
        self.state = state
        self.root_path = root_path.rstrip("/")
        self.raw_root_path = quote(self.root_path).encode("ascii")
        self.template = {
            "type": "http", "asgi": None, "http_version": "1.1", "method": "GET",
            "scheme": scheme, "path": "/", "raw_path": b"/", "query_string": b"",
            "root_path": self.root_path, "headers": None, "client": None, "server": None,
            "extensions": None,
        }
        if state is not None:
            self.template["state"] = None

    cdef int begin(self, Wire wire) except -1:
        cdef AsgiExchange exchange
        cdef Connection face = wire.face
        if wire.request.flags & NP_HTTP_WEBSOCKET:
            return self.begin_socket(wire)
        exchange = AsgiExchange.__new__(AsgiExchange)
        scope = self.scope_of(wire)
        wire.take_head()
        exchange.wire = wire
        exchange.host = face.host
        exchange.application = self
        wire.exchange = exchange
        try:
            coro = self.call(scope, exchange.receive, exchange.send)
            exchange.task = make_task(exchange, face, coro)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            exchange.finished(exc)
            return 0
        exchange.task.run()
        return 0

    cdef int begin_socket(self, Wire wire) except -1:
        """The same for a request that asks for a WebSocket."""
        cdef Connection face = wire.face
        cdef Handshake handshake = read_handshake(&wire.request)
        cdef AsgiSocket socket
        cdef RequestTask task
        if handshake.status:
            wire.take_head()
            return handshake.refuse(wire)
        scope = self.scope_of(wire)
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = handshake.subprotocols
        scope["extensions"] = self.extensions_of(face, SOCKET_EXTENSIONS)
        del scope["method"]
        wire.take_head()
        socket = AsgiSocket.__new__(AsgiSocket)
        prepare(socket, wire, self.rules, handshake, self.report)
        try:
            coro = self.call(scope, socket.receive, socket.send)
            task = make_task(socket, face, coro)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            socket.finished(exc)
            return 0
        task.run()
        return 0

    cdef object call(self, dict scope, object receive, object send):
        """The coroutine of a request. No code of the application runs before it does: what that
        sets in its context is this request's, and it has a current task."""
        if self.makes_coroutines:
            return self.app(scope, receive, send)
        return self._await_app(scope, receive, send)

    async def _await_app(self, scope, receive, send):
        """Of an application that runs code when it is called, or gives another awaitable."""
        await self.app(scope, receive, send)

    cdef int mount(self, dict scope) except -1:
        """ASGI's path has the root path in it. A proxy may have taken it off, or not."""
        cdef str path = scope["path"]
        if path[:1] == "/" and not (path + "/").startswith(self.root_path + "/"):
            scope["path"] = self.root_path + path
            scope["raw_path"] = self.raw_root_path + <bytes>scope["raw_path"]
        return 0

    cdef dict extensions_of(self, Connection face, tuple names):
        cdef dict extensions = {name: {} for name in names}
        if self.describe_tls is not None:
            facts = self.tls_of(face)
            if facts is not None:
                extensions["tls"] = (<dict>facts).copy()
        return extensions

    cdef object tls_of(self, Connection face):
        """Asked for once in the life of a connection."""
        cdef uint32_t index, serial
        if face.conn is NULL:
            return None
        index, serial = face.conn.index, face.conn.serial
        known = self.tls_known.get(index)
        if known is not None and known[0] == serial:
            return known[1]
        facts = None
        ssl_object = face.ssl_object
        if ssl_object is not None:
            facts = self.describe_tls(ssl_object, face.host.certificate_of(face.conn))
        self.tls_known[index] = (serial, facts)
        return facts

    cdef dict scope_of(self, Wire wire):
        cdef const np_http1 *request = &wire.request
        cdef Addresses addresses = wire.service.addresses
        cdef Connection face = wire.face
        cdef dict scope = self.template.copy()
        scope["asgi"] = ASGI.copy()
        scope["extensions"] = self.extensions_of(face, EXTENSIONS)
        if not request.minor:
            scope["http_version"] = "1.0"
        scope["method"] = method_name(
            request.method, request.base + request.method_name.at, request.method_name.bytes)
        scope["path"] = path_of(request)
        scope["raw_path"] = text_of(request, request.path.at, request.path.bytes) or b"/"
        if self.root_path:
            self.mount(scope)
        scope["query_string"] = text_of(request, request.query.at, request.query.bytes)
        scope["headers"] = wire.service.header_pairs.of(request)
        if wire.request_id is not None:
            wire.service.ids.put(scope["headers"], wire.request_id)
        client = addresses.client(face)
        if wire.service.forwarded is not None:
            client, scope["scheme"] = wire.service.forwarded.told(
                request, client, scope["scheme"])
        scope["client"] = client
        scope["server"] = addresses.server(face)
        if self.state is not None:
            scope["state"] = self.state.copy()
        return scope


cdef class AsgiExchange(Exchange):
    cdef AsgiApplication application
    cdef RequestTask task
    cdef object fields          # of http.response.start
    cdef int status
    cdef bint is_started, is_complete
    cdef list trailers          # until their last message; None: none were promised
    cdef bint wants_trailers    # the body is written, and they complete the answer
    cdef bint has_request       # all of the body was received
    cdef bint is_gone           # the peer sends no more
    cdef list waiting           # calls of receive() that wait

    cdef int body_arrived(self) except -1:
        self.wire.wants_body = False
        return self.wake()

    cdef int disconnected(self) except -1:
        self.is_gone = True
        return self.wake()

    cdef int wake(self) except -1:
        cdef Awaitable one
        waiting = self.waiting
        self.waiting = None
        if waiting is not None:
            for one in waiting:
                one.resume()
        return 0

    cdef int finished(self, object error) except -1:
        cdef Wire wire = self.wire
        self.task = None
        self.wire = None
        self.wake()
        if wire is not None and wire.is_refused:
            return 0  # for what the peer did, and it was told
        if error is not None and not isinstance(error, CancelledError):
            if wire is not None or self.is_complete or not is_of_the_end(error):
                self.application.report("the ASGI application failed", error)
        elif wire is not None and error is None \
                and not self.is_complete and not self.has_left(wire):
            self.application.report(
                "the ASGI application returned before its response was complete"
                if self.is_started else "the ASGI application returned without a response", None)
        self.fields = None
        if wire is None or self.is_complete:
            return 0
        wire.exchange = None
        return wire.fail()

    cdef bint has_left(self, Wire wire) noexcept:
        """The peer has shut its side. An application that hears of it need not say more."""
        return self.is_gone or wire.face is None or wire.face.conn is NULL \
            or wire.face.conn.flags & NP_CONN_EOF != 0

    # ---- what the application calls -----------------------------------------------------------

    def receive(self):
        cdef Receive wait = Receive.__new__(Receive)
        wait.exchange = self
        return wait

    def send(self, message not None):
        self.host.check_thread()
        return self.say(message if type(message) is dict else dict(message))

    cdef object say(self, dict message):
        cdef Wire wire = self.wire
        kind = message["type"]
        if kind == "http.response.start":
            if self.is_started:
                raise RuntimeError("http.response.start was sent already")
            self.status = message["status"]
            self.fields = message.get("headers")
            self.trailers = [] if message.get("trailers", False) else None
            self.is_started = True
            return READY
        if kind == "http.response.early_hint":
            return self.send_hints(message["links"])
        if not self.is_started:
            raise RuntimeError(f"{kind} was sent before http.response.start")
        if kind == "http.response.trailers":
            return self.send_trailers(message.get("headers", ()),
                                      message.get("more_trailers", False))
        if self.is_complete or self.wants_trailers:
            raise RuntimeError(f"{kind} was sent after the end of the response")
        if wire is None:
            raise ConnectionResetError("the client has closed the connection")
        if kind == "http.response.body":
            return self.send_body(wire, message.get("body", b""), message.get("more_body", False))
        if kind == "http.response.pathsend":
            return self.send_path(wire, message["path"])
        if kind == "http.response.zerocopysend":
            return self.send_file(wire, message["file"], message.get("offset"),
                                  message.get("count"), message.get("more_body", False))
        raise RuntimeError(f"not a message of an HTTP response: {kind!r}")

    cdef object send_body(self, Wire wire, object data, bint more):
        if type(data) is not bytes:  # bytes() of a number would be so many zeros
            data = bytes(data) if hasattr(data, "__bytes__") else bytes(memoryview(data))
        if not more and not wire.has_head \
                and (self.trailers is None or not may_have_trailers(wire, self.status)):
            wire.write_whole(self.status, self.fields, data)
            return self.complete()
        if not wire.has_head:
            wire.write_head(self.status, self.fields, -1)
        wire.write_data(data)
        if more and not wire.has_body:
            return sleep(0)  # nothing holds back who sends without an end: others have their turn
        return wire.room() or READY if more else self.end_body(wire)

    cdef object send_path(self, Wire wire, object path):
        cdef ServedFile file = self.application.files.find(path)
        if not wire.has_head:
            answer_with_file(wire, self.status, self.fields, file)
        else:
            write_part(wire, file, 0, file.size)
            wire.end_answer()
        return self.complete()

    cdef object send_file(self, Wire wire, object file, object offset, object count, bint more):
        cdef int64_t start = 0
        cdef int64_t size
        fd = file if isinstance(file, int) else file.fileno()
        start = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        size = max(0, os.fstat(fd).st_size - start)
        if count is not None:
            size = min(size, <int64_t>count)
        if start < 0 or size < 0:
            raise ValueError("the offset and the count of a part of a file must not be negative")
        if not wire.has_head:
            wire.write_head(self.status, self.fields, -1 if more else size)
        wire.write_span(span_of(fd), start, size)
        if offset is None:
            os.lseek(fd, start + size, os.SEEK_SET)
        return wire.room() or READY if more else self.end_body(wire)

    cdef object end_body(self, Wire wire):
        if self.trailers is not None and has_trailers(wire):
            self.wants_trailers = True
            return READY
        wire.end_answer()
        return self.complete()

    cdef object send_trailers(self, object fields, bint more):
        """Checked also when this peer takes none: a mistake shows with each of them."""
        cdef Wire wire = self.wire
        cdef list trailers = self.trailers
        if trailers is None or not (self.is_complete or self.wants_trailers):
            raise RuntimeError("http.response.trailers comes once, behind the body, and when "
                               "http.response.start has said 'trailers': True")
        trailers.extend(fields)
        if more:
            return READY
        end = last_chunk(trailers)
        self.trailers = None
        if self.is_complete:
            return READY
        if wire is None:
            raise ConnectionResetError("the client has closed the connection")
        wire.trailers = end
        wire.end_answer()
        return self.complete()

    cdef object complete(self):
        """The answer is written. The coroutine may go on; what it receives is a disconnect."""
        self.is_complete = True
        self.wire = None
        self.wake()
        return READY

    cdef object send_hints(self, object links):
        cdef list values = [bytes(link) for link in links]  # which may end this answer
        cdef Wire wire = self.wire
        if wire is not None and not self.is_started and wire.request.minor:
            write_hints(wire, values)
        return READY


cdef int write_hints(Wire wire, list links) except -1:
    """103 (Early Hints, RFC 8297): links that a browser may fetch before the answer."""
    pieces = [b"HTTP/1.1 103 Early Hints\r\n"]
    for link in links:
        if np_answer_check(b"link", 4, <const uint8_t*>PyBytes_AS_STRING(link),
                           PyBytes_GET_SIZE(link)):
            raise ValueError(f"not the value of a field: {link!r}")
        pieces.append(b"link: " + link + b"\r\n")
    pieces.append(b"\r\n")
    if wire.face is not None and not wire.has_head:
        wire.put_bytes(b"".join(pieces))
        wire.face.pushed()
    return 0


cdef class Receive(Awaitable):
    """A call of receive(): a message, when there is one."""
    cdef AsgiExchange exchange

    cdef object step(self):
        cdef AsgiExchange exchange = self.exchange
        exchange.host.check_thread()
        cdef Wire wire = exchange.wire
        if wire is not None and not exchange.has_request:
            wire.say_continue()
            body = b"" if wire.has_all() else wire.read_body()
            if body is not None and (body or wire.has_all()):
                exchange.has_request = wire.has_all()
                self.is_done = True
                return {"type": "http.request", "body": body,
                        "more_body": not exchange.has_request}
        if wire is None or exchange.is_gone or wire.face is None \
                or wire.face.conn.flags & NP_CONN_EOF:
            self.is_done = True
            return {"type": "http.disconnect"}
        if exchange.waiting is None:
            exchange.waiting = []
        exchange.waiting.append(self)
        wire.wants_body = not exchange.has_request
        return self.wait_on(wire.face.host.loop)

    cdef int abandon(self) except -1:
        """It was cancelled: nobody waits, so nothing of it stays."""
        cdef AsgiExchange exchange = self.exchange
        if not exchange.host.is_its_thread():
            return 0  # refused there
        if exchange.waiting is not None and self in exchange.waiting:
            exchange.waiting.remove(self)
            if not exchange.waiting and exchange.wire is not None:
                exchange.wire.wants_body = False
        return 0


install_awaitable_slots(Receive, "receive")
seal_types(globals(), (AsgiApplication,))
