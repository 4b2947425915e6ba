"""Signal handlers, Ctrl-C idle and busy, signal storms. Bug class 17 throughout."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from ..support import child_output, child_says, run_child, talking_child, until

pytestmark = pytest.mark.control


async def test_a_handler_is_called_with_its_arguments(loop: Any) -> None:
    seen: list[tuple[int, ...]] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda *args: seen.append(args), 1, 2)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: seen)
        assert seen == [(1, 2)]
    finally:
        assert loop.remove_signal_handler(signal.SIGUSR1)
    assert not loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_handler_runs_in_the_loop(loop: Any) -> None:
    """As a callback: it may use the loop and its exception goes to the exception handler."""
    future = loop.create_future()

    def handler() -> None:
        assert asyncio.get_running_loop() is loop
        future.set_result(threading.get_ident())

    loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await future == threading.get_ident()
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_handler_that_raises_is_reported(loop: Any, errors: list[dict[str, Any]]) -> None:
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 / 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: errors)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    errors.clear()
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_second_handler_replaces_the_first(loop: Any) -> None:
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "second")
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: seen)
    assert seen == ["second"]
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_several_signals(loop: Any) -> None:
    seen: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "usr1")
    loop.add_signal_handler(signal.SIGUSR2, seen.append, "usr2")
    for _ in range(5):
        count = len(seen)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda count=count: len(seen) == count + 2)
    assert sorted(seen) == ["usr1"] * 5 + ["usr2"] * 5
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR2)


def test_handlers_are_restored_on_removal_and_close(loop: Any) -> None:
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    wakeup_before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_before)
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGINT, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    wakeup_after = signal.set_wakeup_fd(-1)
    assert wakeup_after == wakeup_before


def test_wrong_signals_and_callbacks(loop: Any) -> None:
    async def coroutine_function() -> None:
        pass

    with pytest.raises(TypeError):
        loop.add_signal_handler("SIGUSR1", print)
    with pytest.raises(ValueError):
        loop.add_signal_handler(signal.NSIG + 1, print)
    with pytest.raises(RuntimeError):
        loop.add_signal_handler(signal.SIGKILL, print)
    with pytest.raises(TypeError, match="coroutines"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine_function)
    with pytest.raises(ValueError):
        loop.remove_signal_handler(signal.NSIG + 1)


def test_only_the_main_thread_may_add_handlers(loop: Any) -> None:
    """Bug class 15."""
    caught: list[BaseException] = []

    def add() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except (RuntimeError, ValueError) as error:
            caught.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    assert len(caught) == 1
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_pythons_own_handlers_run_while_the_loop_waits(loop: Any) -> None:
    """A handler set with signal.signal runs, and an exception in it leaves the loop."""

    class Alarm(Exception):
        pass

    def handler(*_args: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(Alarm):
            loop.run_forever()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert loop.run_until_complete(asyncio.sleep(0, "works")) == "works"


def test_a_signal_storm_does_not_end_the_wait(loop: Any) -> None:
    """EINTR while waiting: the sleep lasts its time and nothing is lost."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_args: seen.append(1))
    stop = threading.Event()

    def storm() -> None:
        while not stop.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)

    async def main() -> float:
        start_s = loop.time()
        await asyncio.sleep(0.2)
        return loop.time() - start_s

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        assert loop.run_until_complete(main()) >= 0.199
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) > 10


def test_traffic_survives_a_signal_storm(loop: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        number = 0
        while number < 300 or len(counted) < 10:  # the storm's thread may be slow to start
            message = number.to_bytes(4, "big") * 100
            writer.write(message)
            assert await reader.readexactly(len(message)) == message
            number += 1
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    stop = threading.Event()

    def storm() -> None:
        while not stop.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)

    counted: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, counted.append, 1)
    thread = threading.Thread(target=storm)
    thread.start()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 30))
    finally:
        stop.set()
        thread.join()
        loop.remove_signal_handler(signal.SIGUSR1)


def _ctrl_c_idle() -> None:
    import os
    import signal
    import sys
    import threading

    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = new_loop()  # type: ignore[name-defined]
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted", loop.is_running())
    loop.close()
    print("closed")
    sys.stdout.flush()


def _ctrl_c_busy() -> None:
    import os
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = new_loop()  # type: ignore[name-defined]

    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted", loop.is_running())
    loop.close()
    print("closed")


@pytest.mark.parametrize("body", [_ctrl_c_idle, _ctrl_c_busy], ids=["idle", "busy"])
def test_ctrl_c_leaves_run_forever(backend: str, body: Any) -> None:
    assert child_output(backend, body) == "interrupted False\nclosed\n"


def _ctrl_c_runner() -> None:
    import asyncio
    import os
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            await server.serve_forever()
        finally:
            print("cleaned", server.is_serving())

    factory = new_loop  # type: ignore[name-defined]
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")


def test_ctrl_c_cancels_the_main_task_of_a_runner(backend: str) -> None:
    assert child_output(backend, _ctrl_c_runner) == "cleaned False\ninterrupted\n"


def _busy_server() -> None:
    import asyncio
    import itertools
    import signal
    import socket
    import threading

    signal.signal(signal.SIGINT, signal.default_int_handler)

    busy = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in itertools.count():
            if number == 100:
                busy.set()
            data = await reader.read(65536)
            if not data:
                break  # reading on would never wait again
            writer.write(data)
            await writer.drain()
        writer.close()

    def client(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as sock:
            try:
                while True:
                    sock.sendall(b"x" * 1000)
                    if not sock.recv(65536):
                        return
            except OSError:
                return

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(4):
            threading.Thread(target=client, args=(address,), daemon=True).start()
        await busy.wait()
        print("ready", flush=True)
        try:
            await asyncio.sleep(1000)
        finally:
            server.close()

    factory = new_loop  # type: ignore[name-defined]
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")


def test_ctrl_c_ends_a_busy_server(backend: str) -> None:
    with talking_child(backend, _busy_server) as child:
        child_says(child, "ready")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
        assert (child.returncode, out) == (0, "interrupted\n"), err


def _storm_of_sigint() -> None:
    import asyncio
    import os
    import signal
    import threading
    import time

    loop = new_loop()  # type: ignore[name-defined]
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    loop.add_signal_handler(signal.SIGINT, count)

    def storm() -> None:
        for _ in range(200):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    thread = threading.Thread(target=storm)
    thread.start()
    loop.run_until_complete(asyncio.sleep(0.1))
    while thread.is_alive():
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    print(counted > 50)


def test_ctrl_c_storm_with_a_handler(backend: str) -> None:
    assert child_output(backend, _storm_of_sigint) == "True\n"


def _ignored_sigpipe() -> None:
    import asyncio
    import socket

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        left.setblocking(False)
        right.close()
        try:
            await loop.sock_sendall(left, b"x" * 100)
        except BrokenPipeError:
            print("broken pipe")
        left.close()
        left, right = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        right.close()
        transport.write(b"x")
        transport.write(b"y")
        await asyncio.sleep(0.05)
        print(transport.is_closing())

    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    loop = new_loop()  # type: ignore[name-defined]
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.netpoll_only
def test_no_sigpipe(backend: str) -> None:
    """A dead peer is an error even where SIGPIPE kills: MSG_NOSIGNAL everywhere."""
    done = run_child(backend, _ignored_sigpipe)
    assert (done.returncode, done.stdout) == (0, "broken pipe\nTrue\n"), done.stderr


def test_signals_reach_children_unblocked(backend: str, loop: Any) -> None:
    """Making a loop leaves the signal mask alone."""
    loop.run_until_complete(asyncio.sleep(0))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    code = "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert out.stdout == b"0\n"
