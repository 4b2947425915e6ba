"""Types of the socket calls that netpoll.EventLoop has as methods."""

import socket
from collections.abc import Coroutine
from typing import Any

from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

from netpoll._core import Loop

def sock_recv(self: Loop, sock: socket.socket, n: int) -> Coroutine[Any, Any, bytes]: ...
def sock_recv_into(self: Loop, sock: socket.socket, buf: Buffer) -> Coroutine[Any, Any, int]: ...
def sock_recvfrom(
    self: Loop, sock: socket.socket, bufsize: int
) -> Coroutine[Any, Any, tuple[bytes, Any]]: ...
def sock_recvfrom_into(
    self: Loop, sock: socket.socket, buf: Buffer, nbytes: int = 0
) -> Coroutine[Any, Any, tuple[int, Any]]: ...
def sock_sendall(self: Loop, sock: socket.socket, data: Buffer) -> Coroutine[Any, Any, None]: ...
def sock_sendto(
    self: Loop, sock: socket.socket, data: Buffer, address: Any
) -> Coroutine[Any, Any, int]: ...
def sock_accept(
    self: Loop, sock: socket.socket
) -> Coroutine[Any, Any, tuple[socket.socket, Any]]: ...
def connect_resolved(
    self: Loop, sock: socket.socket, address: Any
) -> Coroutine[Any, Any, None]: ...
