# cython: language_level=3, freethreading_compatible=True
"""A WebSocket for an `async def` handler: what Request.websocket() gives."""

from netpoll._native.http.websocket cimport SOCKET_CLOSING, SOCKET_OPEN, SOCKET_OVER, Socket
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.ready cimport READY
from netpoll._native.seal cimport seal_types


cdef class WebSocket(Socket):
    """An open WebSocket: `async for message in websocket` gives each message, a str or bytes, until
    one side closes. Then close_code and close_reason say how; 1006: without a close frame.

    Everything belongs to the connection's thread. At the handler's end the socket is closed.
    """

    def __repr__(self):
        state = "open" if self.state == SOCKET_OPEN else f"closed {self.close_code}"
        return f"<netpoll.http.WebSocket {state}>"

    def send(self, message):
        """Sends a str or bytes; awaiting it waits while the peer does not take what was sent.

        ConnectionResetError when the socket is closed, TypeError for anything else than a message.
        BufferError when 32 MiB wait to be sent already: nobody has awaited it.
        """
        return self.send_message(message)

    def close(self, int code=1000, str reason not None=""):
        """Begins to close; nothing happens when that has begun. The await ends at once.

        ValueError for a code that may not be sent, and for more than 123 bytes of reason.
        """
        self.host.check_thread()
        self.begin_close(code, reason)
        return READY

    @property
    def closed(self):
        return self.state != SOCKET_OPEN

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Next wait = Next.__new__(Next)
        wait.socket = self
        return wait


cdef class Next(Awaitable):
    cdef WebSocket socket

    cdef object step(self):
        message = self.socket.take()
        if message is not None:
            self.is_done = True
            return message
        if self.socket.state == SOCKET_CLOSING or self.socket.state == SOCKET_OVER:
            raise StopAsyncIteration
        return self.socket.wait(self)

    cdef int abandon(self) except -1:
        return self.socket.forget(self)


install_awaitable_slots(Next, "WebSocket.__anext__")
seal_types(globals())
