# cython: language_level=3, freethreading_compatible=True
"""WSGI (PEP 3333): an application that blocks, in a thread of a pool or in the loop's own.

    head read -> environ -> pool thread: app(environ, start_response), its iterable
                 loop <- answers, in batches: one wake-up of the loop for all that are ready

A connection belongs to its loop. So a pool thread never touches it: it posts what is to be done,
and waits only for what it needs an answer to: bytes of the request's body, and room when the peer
does not take the answer. Without a pool the same steps are taken at once, in the loop's thread.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport NP_CONN_EOF
from netpoll._native.http.c cimport NP_HTTP_HEAD
from netpoll._native.http.crew cimport Crew, Runner
from netpoll._native.http.request_task cimport is_of_the_end
from netpoll._native.http.served_file cimport is_plain_file, span_of
from netpoll._native.http.wire cimport STAGE_OVER, Application, Exchange, Wire
from netpoll._native.http.wsgi_environ cimport environ_of, environ_template
from netpoll._native.limits cimport HTTP_PENDING_MAX_BYTES
from netpoll._native.seal cimport seal_types

import os
import stat
from queue import SimpleQueue
from threading import get_ident

cdef enum Step:
    # What a thread asks the loop for. The last two have a reply.
    STEP_WHOLE      # (status, fields, body): all of the answer
    STEP_BEGIN      # (status, fields, data): its head, and the first of its body
    STEP_DATA       # data: more of it
    STEP_FILE       # (status, fields, span, offset, size): all of it, out of a file
    STEP_END        # None: that was all
    STEP_FAIL       # an exception: the application has failed
    STEP_READ       # None; reply: (data, that was all) of the request's body, None: will not come
    STEP_ROOM       # None; reply: when the peer has taken most of the answer


# ---- what an application gets, beside the environ -----------------------------------------------

cdef class FileWrapper:
    """wsgi.file_wrapper: returned by an application, it is sent by sendfile(2) if it is a file on
    a disk. Else, and within middleware, it is an iterable."""

    cdef public object filelike
    cdef public Py_ssize_t blksize

    def __cinit__(self, filelike, Py_ssize_t blksize=8192):
        self.filelike = filelike
        self.blksize = blksize

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration

    def close(self):
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


cdef class WsgiExchange(Exchange)  # below


cdef class Input:
    """wsgi.input: the body of a request. It ends where the body does, chunked or not."""

    cdef WsgiExchange exchange
    cdef bytes rest             # what was received of it
    cdef Py_ssize_t at          # so much of that was read
    cdef bint is_over           # no more will be received

    cdef int fetch(self) except -1:
        reply = self.exchange.ask(STEP_READ)
        if reply is None:
            raise ConnectionResetError("the client has not sent the whole body")
        more, self.is_over = reply
        self.rest = self.take(-1) + more
        return 0

    cdef bytes take(self, Py_ssize_t size):
        """At most so many bytes of what is there; -1: all."""
        cdef Py_ssize_t start = self.at
        data = self.rest
        if size < 0 or size >= PyBytes_GET_SIZE(data) - start:
            self.rest = b""
            self.at = 0
            return data[start:]
        self.at += size
        return data[start:start + size]

    cdef Py_ssize_t there(self) noexcept:
        return PyBytes_GET_SIZE(self.rest) - self.at

    def read(self, size=-1):
        """So many bytes, fewer only at the end of the body; all of it for -1 or None."""
        cdef Py_ssize_t left = -1 if size is None else size
        parts = []
        while True:
            part = self.take(left)
            if part:
                parts.append(part)
            if left > 0:
                left -= PyBytes_GET_SIZE(part)
            if left == 0 or self.is_over and not self.there():
                return parts[0] if len(parts) == 1 else b"".join(parts)
            try:
                self.fetch()
            except BaseException:
                self.rest = b"".join(parts)  # for whoever reads where it is allowed
                self.at = 0
                raise

    def readline(self, size=-1):
        """Up to a line feed, and with it; at most so many bytes."""
        cdef Py_ssize_t limit = -1 if size is None else size
        cdef Py_ssize_t end
        cdef Py_ssize_t seen = 0    # without a line feed, from `at` on
        while True:
            end = self.rest.find(b"\n", self.at + seen)
            size = end + 1 - self.at if end >= 0 else -1
            if 0 <= limit and (size > limit or size < 0 and self.there() >= limit):
                size = limit
            if size >= 0 or self.is_over:
                return self.take(size)
            seen = self.there()
            self.fetch()

    def readlines(self, hint=-1):
        """All lines; with a hint, those until so many bytes were read."""
        cdef Py_ssize_t left = -1 if hint is None else hint
        lines = []
        while line := self.readline():
            lines.append(line)
            if left > 0:
                left -= len(line)
                if left <= 0:
                    break
        return lines

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if line:
            return line
        raise StopIteration


# ---- the application ----------------------------------------------------------------------------

cdef class WsgiApplication(Application)  # below


cdef class ApplicationRunner(Runner):
    """What the threads of a pool see of an application, and who calls them."""

    cdef WsgiApplication application
    cdef bint is_marked         # the end of the turn is awaited
    cdef bint has_waited        # some requests wait behind others that block

    cdef int run(self, object job) except -1:
        return (<WsgiExchange>job).run()

    cdef bint guard(self) except -1:
        return self.application.ring()

    # ---- in the loop ----------------------------------------------------------------------------

    cdef int put(self, WsgiExchange exchange) except -1:
        self.application.pool.put(self, exchange)
        return self.mark()

    cdef int look(self) except -1:
        """The GIL is free: whoever ran has ended, or blocks."""
        if self.application.pool.is_short():
            self.has_waited = True
            return self.mark()
        return 0

    cdef int mark(self) except -1:
        if not self.is_marked:
            self.application.loop.mark_dirty(self)
            self.is_marked = True
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        cdef Crew pool = self.application.pool
        cdef bint has_waited = self.has_waited
        self.is_marked = self.has_waited = False
        try:
            pool.call(has_waited, loop)
        except RuntimeError as exc:  # there is no thread, and none can be made
            for job in pool.take_back(self, None):
                (<WsgiExchange>job).environ = None
                (<WsgiExchange>job).take_step(STEP_FAIL, exc)
        except BaseException:  # of a signal handler, while a thread was made
            self.has_waited = has_waited
            self.mark()
            raise
        return 0


cdef class WsgiApplication(Application):
    """app: the WSGI callable. pool: the threads that run it; None: the loop's thread.
    multiprocess: other processes serve it as well. report(message, error): tells of failures."""

    cdef object app, report
    cdef Loop loop
    cdef Crew pool
    cdef ApplicationRunner runner
    cdef dict template          # of the environ
    cdef object thread_ident    # of the loop's thread, which makes this object
    # What follows is only touched in critical sections, which run no Python code.
    cdef list inbox             # (exchange, step, value), from pool threads
    cdef bint is_called         # the loop will look at it
    cdef bint is_closed

    def __cinit__(self, app, Loop loop, Crew pool or None, str scheme not None,
                  str root_path not None, bint multithread, bint multiprocess, report):
        self.app = app
        self.loop = loop
        self.pool = pool
        self.report = report
        self.thread_ident = get_ident()
        self.inbox = []
        self.template = environ_template(scheme, root_path, multithread, multiprocess, FileWrapper)
        self.runner = ApplicationRunner.__new__(ApplicationRunner)
        self.runner.application = self

    cdef int begin(self, Wire wire) except -1:
        cdef WsgiExchange exchange = WsgiExchange.__new__(WsgiExchange)
        exchange.environ = environ_of(self.template, wire)
        wire.take_head()
        exchange.wire = wire
        exchange.application = self
        wire.exchange = exchange
        return exchange.gather()

    cdef int post(self, WsgiExchange exchange, int step, object value) except -1:
        """From a pool thread: the loop will take the step."""
        cdef bint is_closed
        posted = (exchange, step, value)
        with cython.critical_section(self):
            is_closed = self.is_closed
            if not is_closed:
                self.inbox.append(posted)
        if is_closed:
            exchange.is_gone = True
            return exchange.miss(step, value)
        self.ring()
        return 0

    cdef bint ring(self) except -1:
        """From a pool thread: the loop will look at what was posted, and who waits for a thread.
        False: it is closed."""
        cdef bint is_due = False
        cdef bint is_closed
        with cython.critical_section(self):
            is_closed = self.is_closed
            if not is_closed and not self.is_called:
                is_due = self.is_called = True
        if is_due:
            try:
                self.loop.call_soon_threadsafe(self._run_inbox)
            except RuntimeError:
                return False  # it was closed meanwhile: close() has seen to what was posted
        return not is_closed

    def _run_inbox(self):
        """In the loop's thread: all that was posted until now."""
        cdef WsgiExchange exchange
        cdef list posted = []
        with cython.critical_section(self):
            posted, self.inbox = self.inbox, posted
            self.is_called = False
        self.runner.look()
        for exchange, step, value in posted:
            exchange.take_step(step, value)

    def close(self):
        """In the loop's thread, when all connections are over: no thread waits for it any more."""
        cdef WsgiExchange exchange
        cdef list posted = []
        with cython.critical_section(self):
            self.is_closed = True
            posted, self.inbox = self.inbox, posted
        for exchange, step, value in posted:
            exchange.is_gone = True
            exchange.miss(step, value)


# ---- one request --------------------------------------------------------------------------------

cdef bytes exact_bytes(object data):
    if type(data) is bytes:
        return data
    if not isinstance(data, bytes):
        raise TypeError(f"a WSGI application yields bytes, not {type(data).__name__}")
    return bytes(data)


cdef bint is_over(Wire wire) noexcept:
    """Nobody takes an answer there any more."""
    return wire is None or wire.stage == STAGE_OVER or wire.face is None or wire.face.conn is NULL


cdef class WsgiExchange(Exchange):
    cdef WsgiApplication application
    cdef dict environ           # None: the application has it, or had it
    # The loop's.
    cdef list parts             # of the body, while an inline application waits for all of it
    cdef bint is_reading        # a thread waits for more of the body
    # The thread's that runs the application; in between, the loop's or a pool's.
    cdef str status             # three digits
    cdef list headers           # of start_response
    cdef object result, iterator
    cdef object replies         # of the loop, to what was asked
    cdef int64_t told_bytes     # Content-Length; -1: not said
    cdef Py_ssize_t ahead_bytes     # written since the peer was waited for
    cdef bint is_begun, is_complete, is_single
    cdef bint is_bodiless       # the answer has no body, whatever the application yields
    # Written by the loop: nobody takes the answer any more.
    cdef bint is_gone

    # ---- in the loop --------------------------------------------------------------------------

    cdef int gather(self) except -1:
        """The application runs when its request is there: for a pool the head is enough."""
        cdef Wire wire = self.wire
        if wire.has_all():
            return self.begin(b"")
        if self.application.pool is None:
            self.parts = []
            wire.wants_body = True
            wire.say_continue()
            return self.body_arrived()
        body = b"" if wire.expects else wire.read_body()
        return self.begin(body) if body is not None else 0

    cdef int begin(self, bytes body) except -1:
        cdef Input source = Input.__new__(Input)
        source.exchange = self
        source.rest = body
        source.is_over = self.wire.has_all()
        self.environ["wsgi.input"] = source
        self.is_bodiless = self.wire.request.method == NP_HTTP_HEAD
        if self.application.pool is None:
            return self.run()
        return self.application.runner.put(self)

    cdef int body_arrived(self) except -1:
        cdef Wire wire = self.wire
        if self.is_reading:
            self.is_reading = False
            return self.feed(wire)
        if self.parts is None:
            return 0
        data = wire.read_body()
        if data is None:
            return 0
        self.parts.append(data)
        if wire.has_all():
            wire.wants_body = False
            body = b"".join(self.parts)
            self.parts = None
            return self.begin(body)
        return 0

    cdef int feed(self, Wire wire) except -1:
        """Answers a thread that waits for the body, or will when there is something."""
        wire.say_continue()
        wire.wants_body = False
        data = b"" if wire.has_all() else wire.read_body()
        if data is None or self.is_gone:
            self.replies.put(None)
        elif data or wire.has_all():
            self.replies.put((data, bool(wire.has_all())))
        elif is_over(wire) or wire.face.conn.flags & NP_CONN_EOF:
            self.replies.put(None)
        else:
            self.is_reading = wire.wants_body = True
        return 0

    cdef int disconnected(self) except -1:
        cdef Wire wire = self.wire
        if wire is None or wire.stage == STAGE_OVER:
            self.is_gone = True
        if self.is_reading:
            self.is_reading = False
            self.replies.put(None)
        if self.parts is not None:
            self.parts = None
            if wire is not None and wire.stage != STAGE_OVER:
                wire.abort()  # the rest of the body will not come
        return 0

    cdef int take_step(self, int step, object value) except -1:
        """Of a pool thread: what fails here is the application's answer."""
        try:
            self.perform(step, value)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if step == STEP_READ or step == STEP_ROOM:
                self.replies.put(None)
            self.failed(exc)
        return 0

    cdef int perform(self, int step, object value) except -1:
        cdef Wire wire = self.wire
        if step == STEP_FAIL:
            return self.failed(value)
        if is_over(wire):
            return self.miss(step, value)
        if step == STEP_WHOLE:
            self.write_whole(wire, value[0], value[1], value[2])
        elif step == STEP_BEGIN:
            wire.write_head(value[0], value[1], -1)
            wire.write_data(value[2])
        elif step == STEP_DATA:
            wire.write_data(value)
        elif step == STEP_FILE:
            self.write_file(wire, value)
        elif step == STEP_END:
            wire.end_answer()
            self.wire = None
        elif step == STEP_READ:
            self.feed(wire)
        else:
            self.tell_of_room(wire.room())
        return 0

    cdef int miss(self, int step, object value) except -1:
        """A step of an answer that nobody takes."""
        if step == STEP_READ or step == STEP_ROOM:
            self.replies.put(None)
        return 0

    cdef int tell_of_room(self, object room) except -1:
        if room is None:
            self.replies.put(None)
        else:
            self.application.loop.create_task(self.tell_after(room))
        return 0

    async def tell_after(self, room):
        try:
            await room
        except ConnectionError:
            pass  # the thread sees that it is gone
        finally:
            self.replies.put(None)

    cdef int write_whole(self, Wire wire, int status, list fields, bytes body) except -1:
        if not body and wire.request.method == NP_HTTP_HEAD:
            wire.write_head(status, fields, -1)  # what GET would send is not known
            wire.end_answer()
        else:
            wire.write_whole(status, fields, body)
        self.wire = None
        return 0

    cdef int write_file(self, Wire wire, tuple value) except -1:
        status, fields, span, offset, size = value
        wire.write_head(status, fields, size)
        wire.write_span(span, offset, size)
        wire.end_answer()
        self.wire = None
        return 0

    cdef int failed(self, object error) except -1:
        cdef Wire wire = self.wire
        is_gone = self.is_gone or is_over(wire) or wire.face.conn.flags & NP_CONN_EOF
        self.wire = None
        self.is_gone = True
        if not (is_gone and (isinstance(error, ConnectionError) or is_of_the_end(error))):
            self.application.report("the WSGI application failed", error)
        if is_over(wire) or wire.is_done:
            return 0
        wire.exchange = None
        return wire.fail()

    # ---- where the application runs -------------------------------------------------------------

    cdef int post(self, int step, object value) except -1:
        if self.application.pool is None:
            return self.perform(step, value)
        return self.application.post(self, step, value)

    cdef object ask(self, int step):
        """Waits for the loop's reply. Only in a pool thread."""
        if get_ident() == self.application.thread_ident:
            raise RuntimeError("the loop's own thread would wait for itself here")
        if self.replies is None:
            self.replies = SimpleQueue()
        self.post(step, None)
        return self.replies.get()

    cdef int run(self) except -1:
        """The application, from its call to the close() of what it has returned."""
        cdef bint is_over = True
        environ = self.environ
        self.environ = None
        if self.is_gone:
            return 0
        try:
            self.result = self.application.app(environ, self.start_response)
            is_over = self.answer()
        except BaseException as exc:
            if self.application.pool is None and isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            self.post(STEP_FAIL, exc)
        finally:
            if is_over:
                self.close_result()
        if not is_over:
            self.application.loop.create_task(self.go_on())
        return 0

    async def go_on(self):
        """The rest of an inline application's answer, which its peer does not take so fast."""
        cdef Wire wire
        try:
            while True:
                wire = self.wire
                room = wire.room() if wire is not None else None
                if room is not None:
                    await room
                if self.iterate():
                    return
        except Exception as exc:
            self.failed(exc)
        finally:
            self.close_result()

    cdef int close_result(self) except -1:
        result = self.result
        self.result = self.iterator = None
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except Exception as exc:
                self.application.report("close() of a WSGI application's result failed", exc)
        return 0

    def start_response(self, status, headers, exc_info=None):
        """Takes the status and the headers, which are sent with the first of the body."""
        if exc_info is not None:
            try:
                if self.is_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circle through the traceback
        elif self.status is not None:
            raise RuntimeError("start_response() was called already, and without exc_info")
        if not isinstance(status, str) or not status[:3].isdigit() or status[3:4] not in ("", " "):
            raise ValueError(f"a status is a str like '200 OK', not {status!r}")
        self.headers = list(headers)
        self.status = status[:3]
        return self.write

    def write(self, data):
        """Sends a part of the body before what the application returns."""
        self.put(data)
        if self.is_gone:
            raise ConnectionResetError("the client has closed the connection")

    cdef tuple head(self):
        """(status, fields), which are not changed any more."""
        if self.status is None:
            raise RuntimeError("start_response() was not called before the body")
        self.is_begun = True
        self.told_bytes = -1
        fields = []
        for name, value in self.headers:
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"a header's name and value are str, not {(name, value)!r}")
            fields.append((name.encode("latin-1"), value.encode("latin-1")))
            if len(name) == 14 and name.lower() == "content-length" and value.isdigit():
                self.told_bytes = int(value)
        status = int(self.status)
        self.is_bodiless = self.is_bodiless or status == 204 or status == 304
        return status, fields

    cdef bint answer(self) except -1:
        """False: the peer of an inline application does not take all of it now."""
        result = self.result
        if isinstance(result, FileWrapper) and self.answer_file(result):
            return True
        if type(result) in (list, tuple) and not self.is_begun:
            self.put_whole(result[0] if len(result) == 1 else b"".join(result))
            return True
        self.is_single = hasattr(result, "__len__") and len(result) == 1
        self.iterator = iter(result)
        return self.iterate()

    cdef bint iterate(self) except -1:
        cdef Wire wire
        for data in self.iterator:
            if self.is_gone:
                return True
            self.put(data)
            if self.is_begun and self.is_bodiless:
                break  # the rest would be made for nobody, and may have no end
            wire = self.wire if self.application.pool is None else None
            if wire is not None and wire.room() is not None:
                return False
        if self.is_begun and not self.is_complete:
            self.post(STEP_END, None)
        elif not self.is_begun:
            self.put_whole(b"")
        return True

    cdef int put_whole(self, object body) except -1:
        body = exact_bytes(body)
        status, fields = self.head()
        self.is_complete = True
        return self.post(STEP_WHOLE, (status, fields, body))

    cdef int put(self, object data) except -1:
        """A part of the body. Waits, in a pool thread, while the peer does not take it."""
        data = exact_bytes(data)
        if not data:
            return 0
        if self.is_complete:
            raise ValueError("the body has more bytes than its Content-Length")
        if self.is_begun:
            self.post(STEP_DATA, data)
        else:
            status, fields = self.head()
            if self.is_single or self.told_bytes == len(data):
                self.is_complete = True
                return self.post(STEP_WHOLE, (status, fields, data))
            self.post(STEP_BEGIN, (status, fields, data))
        self.ahead_bytes += len(data)
        if self.ahead_bytes > HTTP_PENDING_MAX_BYTES and self.application.pool is not None:
            self.ahead_bytes = 0
            self.ask(STEP_ROOM)
        return 0

    cdef bint answer_file(self, FileWrapper wrapper) except -1:
        """False: it is no file on a disk, or not the whole answer."""
        cdef int64_t size
        if self.is_begun or not is_plain_file(wrapper.filelike):
            return False
        try:
            fd = wrapper.filelike.fileno()
            offset = wrapper.filelike.tell()
            found = os.fstat(fd)
        except (AttributeError, OSError, ValueError):
            return False
        if not stat.S_ISREG(found.st_mode):
            return False
        size = max(0, found.st_size - offset)
        status, fields = self.head()
        if 0 <= self.told_bytes < size:
            size = self.told_bytes
        self.is_complete = True
        # The application closes its file before the loop comes to send it.
        self.post(STEP_FILE, (status, fields, span_of(fd), offset, size))
        return True


seal_types(globals(), (WsgiApplication, FileWrapper))
