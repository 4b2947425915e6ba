"""Types of loop/sendfile.pyx."""

import socket
from collections.abc import Coroutine
from typing import IO, Any

from netpoll._core import Loop

def send_file(
    loop: Loop, sock: socket.socket, file: IO[bytes], offset: int, count: int | None
) -> Coroutine[Any, Any, int]: ...
