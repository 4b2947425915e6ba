# cython: language_level=3, freethreading_compatible=True
"""A WebSocket for an ASGI application: receive() and send() of its scope.

https://asgi.readthedocs.io/en/latest/specs/www.html#websocket, version 2.5, with the extension
websocket.http.response.
"""

from netpoll._native.http.websocket cimport (
    SOCKET_ASKED, SOCKET_CLOSING, SOCKET_OVER, Socket)
from netpoll._native.http.wire cimport Wire
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.ready cimport READY
from netpoll._native.seal cimport seal_types


cdef class AsgiSocket(Socket):
    cdef int finished(self, object error) except -1:
        return self.ended(error, "ASGI application")

    def receive(self):
        cdef Receive wait = Receive.__new__(Receive)
        wait.socket = self
        return wait

    def send(self, message not None):
        self.host.check_thread()
        return self.say(message if type(message) is dict else dict(message))

    cdef object say(self, dict message):
        kind = message["type"]
        if self.state == SOCKET_ASKED:
            return self.answer(kind, message)
        if self.has_closed:
            raise RuntimeError(f"{kind} was sent after the end of the WebSocket")
        if kind == "websocket.close":
            return self.close(message)
        if not self.was_accepted:
            raise ConnectionResetError("the client has closed the connection")
        if kind != "websocket.send":
            raise RuntimeError(f"{kind} was sent, and the WebSocket is accepted")
        data = message.get("bytes")
        if data is None:
            data = message.get("text")
        elif type(data) is str:
            raise TypeError("the bytes of websocket.send are not a str")
        if data is None:
            raise ValueError("websocket.send has neither bytes nor text")
        return self.send_message(data)

    cdef object answer(self, str kind, dict message):
        """To the handshake."""
        if kind == "websocket.http.response.body":
            return self.send_denial(message)
        if self.denial is not None:
            raise RuntimeError(f"{kind} was sent within a response to the handshake")
        if kind == "websocket.accept":
            self.accept(message.get("subprotocol"), message.get("headers") or ())
        elif kind == "websocket.close":
            self.has_closed = True
            self.deny(403)
        elif kind == "websocket.http.response.start":
            self.denial = (message["status"], message.get("headers"))
        else:
            raise RuntimeError(f"{kind} was sent before websocket.accept")
        return READY

    cdef object close(self, dict message):
        """Nothing happens when the peer has closed already."""
        code = message.get("code")
        self.begin_close(1000 if code is None else code, message.get("reason") or "")
        self.has_closed = True
        return READY

    cdef object send_denial(self, dict message):
        """The body of an answer in the place of the handshake's."""
        cdef Wire wire = self.wire
        if self.denial is None:
            raise RuntimeError("websocket.http.response.start was not sent before its body")
        status, headers = self.denial
        data = message.get("body", b"")
        if not message.get("more_body", False) and not wire.has_head:
            wire.write_whole(status, headers, data if type(data) is bytes else bytes(data))
            return self.end_denial()
        if not wire.has_head:
            wire.write_head(status, headers, -1)
        wire.write_data(data)
        if not message.get("more_body", False):
            wire.end_answer()
            return self.end_denial()
        return wire.room() or READY

    cdef object end_denial(self):
        self.has_closed = True
        self.denied()
        return READY

    cdef object next_message(self):
        """What receive() gives; None: nothing yet."""
        self.host.check_thread()
        if not self.was_told:
            self.was_told = True
            return {"type": "websocket.connect"}
        message = self.take()
        if message is not None:
            kind = "text" if type(message) is str else "bytes"
            return {"type": "websocket.receive", kind: message}
        if self.state == SOCKET_CLOSING or self.state == SOCKET_OVER:
            return {"type": "websocket.disconnect", "code": self.close_code,
                    "reason": self.close_reason}
        return None


cdef class Receive(Awaitable):
    """A call of receive(): a message, when there is one."""
    cdef AsgiSocket socket

    cdef object step(self):
        message = self.socket.next_message()
        if message is None:
            return self.socket.wait(self)
        self.is_done = True
        return message

    cdef int abandon(self) except -1:
        return self.socket.forget(self)


install_awaitable_slots(Receive, "receive")
seal_types(globals())
