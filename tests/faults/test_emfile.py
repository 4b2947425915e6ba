"""No file descriptor left: accepting pauses and resumes by itself, and nothing spins."""

import pytest

from ..support import child_output, is_netpoll


def _accept_without_fds() -> None:
    import asyncio
    import os
    import resource
    import socket
    import sys

    errors: list[str] = []
    accepted: list[object] = []

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
            accepted.append(transport)
            transport.write(b"hello")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: errors.append(context["message"]))
        # Before the server: io_uring takes the limit of the moment in which accept is armed.
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, hard))
        server = await loop.create_server(Greeter, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.socket() for _ in range(10)]
        for sock in clients:
            sock.setblocking(False)
        fillers = []
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            pass
        turns = loop.stats()["turns"] if hasattr(loop, "stats") else 0
        cpu_s = sum(os.times()[:2])
        for sock in clients:
            await loop.sock_connect(sock, address)
        await asyncio.sleep(0.5)
        assert not accepted, "accepted without a descriptor?"
        if hasattr(loop, "stats"):
            turns = loop.stats()["turns"] - turns
            assert turns < 100, f"{turns} turns in half a second: it spins"
        assert sum(os.times()[:2]) - cpu_s < 0.4, "half a second of CPU: it spins"
        for fd in fillers:
            os.close(fd)
        for sock in clients:
            data = await asyncio.wait_for(loop.sock_recv(sock, 10), 20)
            assert data == b"hello", data
            sock.close()
        server.close()
        for transport in accepted:
            transport.abort()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        assert any("out of system resource" in text for text in errors), errors
        if hasattr(loop, "stats"):  # asyncio reports once for every place in the backlog
            assert len(errors) <= 20, f"{len(errors)} reports"
        print("accepted", len(accepted))
        sys.stdout.flush()

    loop = new_loop()  # type: ignore[name-defined]
    loop.run_until_complete(main())
    loop.close()
    if hasattr(loop, "stats"):
        assert loop.stats()["ops_live"] == 0


@pytest.mark.control
def test_accept_pauses_and_resumes(backend: str) -> None:
    assert child_output(backend, _accept_without_fds) == "accepted 10\n"


def _loop_without_fds() -> None:
    import os
    import resource

    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    loop = new_loop()  # type: ignore[name-defined]  # everything is imported now
    loop.close()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, hard))
    fillers = []
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError:
        pass
    made = 0
    for left in range(8):
        before = set(os.listdir("/proc/self/fd")) if left > 1 else set()
        try:
            loop = new_loop()  # type: ignore[name-defined]
        except OSError:
            pass
        else:
            made += 1
            loop.close()
        if left > 1:
            after = set(os.listdir("/proc/self/fd"))
            assert after == before, f"leaked {after - before}"
        os.close(fillers.pop())
    assert made
    print("fine")


def test_a_loop_that_cannot_be_made(backend: str) -> None:
    """An OSError, and what was opened before it failed is closed."""
    assert is_netpoll(backend)
    assert child_output(backend, _loop_without_fds) == "fine\n"
