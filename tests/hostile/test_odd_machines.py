"""Odd machines: clocks that jump, no IPv6, small stacks, little memory, full disks, no huge pages;
interpreters within a program; processes that become others.
"""

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.faults import restricted
from tests.http.serving import children, serving
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

from .machines import cgroup, in_the_long_lane, output, program, run_program

# An echo over TCP, a timer and a thread: what every machine has to be good for.
ECHO = """
import asyncio, os, socket, sys
import netpoll

async def echo_once(host="127.0.0.1"):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    async with await asyncio.start_server(echo, host, 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"line\\n")
        assert await reader.read() == b"line\\n"
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.01)

async def work():
    await echo_once()
    assert await asyncio.to_thread(int) == 0
    print("fine", flush=True)
"""


def unshared(*options: str) -> tuple[str, ...]:
    """unshare(1) with these namespaces; skips where they are not to be had."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1) is not installed")
    command = ("unshare", *options)
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such namespace here: {done.stderr.strip()}")
    return command


# ---- clocks -------------------------------------------------------------------------------------


def test_the_time_of_day_steps(backend: str) -> None:
    """Timers, time-outs and parking follow CLOCK_MONOTONIC: what the day's clock says is nothing.

    In the process: every function that gives the time of day gives another one than before.
    """
    code = """
    import time
    jumps = iter(range(0, 10**9, 86400 * 365))
    day = time.time
    time.time = lambda: day() + next(jumps) * (-1) ** next(jumps)
    time.time_ns = lambda: int(time.time() * 1e9)

    async def main():
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(60)
        except TimeoutError:
            pass
        assert 0.05 <= loop.time() - begin < 30
        with netpoll.Scheduler(workers=2) as scheduler:
            async def waits():
                await netpoll.sched.sleep(0.05)
                return "slept"
            print(scheduler.spawn(waits).result(timeout=30))
        await work()

    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code, before=ECHO) == "slept\nfine\n"


def test_another_monotonic_clock(backend: str) -> None:
    """A time namespace: the clock that waits are made with began elsewhere, far from ours."""
    prefix = unshared("--time", "--monotonic", "1000000000", "--fork")
    code = """
    import time
    assert time.monotonic() > 1e9
    async def main():
        loop = asyncio.get_running_loop()
        begin = loop.time()
        assert begin > 1e9
        await asyncio.sleep(0.05)
        assert 0.05 <= loop.time() - begin < 30
        await work()
    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code, before=ECHO, prefix=prefix) == "fine\n"


# ---- networks -----------------------------------------------------------------------------------


def test_no_ipv6(backend: str) -> None:
    """Its family exists and has no address: all addresses are then those of IPv4."""
    prefix = unshared("--net")
    code = """
    import subprocess
    from netpoll import http
    with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as file:
        file.write("1")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    async def main():
        await work()
        async with await asyncio.start_server(lambda r, w: w.close(), None, 0) as server:
            print(sorted({sock.family.name for sock in server.sockets}))
        async with netpoll.Server(lambda conn: conn.take(), "", 0, backend=BACKEND) as server:
            print([sock.family.name for sock in server.sockets])
        async with http.Server(lambda request: b"x", None, 0, backend=BACKEND) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
            print((await reader.read())[:12])
            writer.close()
        try:
            await asyncio.open_connection("::1", 1)
        except OSError as error:
            print("refused")

    netpoll.run(main(), backend=BACKEND)
    """
    if shutil.which("ip") is None:
        pytest.skip("ip(8) is not installed")
    if not Path("/proc/sys/net/ipv6").is_dir():
        pytest.skip("this kernel has no IPv6 at all")
    said = output(backend, code, before=ECHO, prefix=prefix).splitlines()
    assert said[0] == "fine"
    assert said[1] in ("['AF_INET']", "['AF_INET', 'AF_INET6']")  # [::] may still be bound
    assert "'AF_INET'" in said[2]
    assert said[3:] == ["b'HTTP/1.1 200'", "refused"]


# ---- memory -------------------------------------------------------------------------------------


def test_small_stacks(backend: str) -> None:
    """Threads with 64 KiB, musl's order of magnitude: workers, loops, a deep handler's error."""
    code = """
    import threading
    threading.stack_size(64 * 1024)
    from netpoll import http

    def app(request):
        return request.query

    def ask(port, data):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.settimeout(20)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while part := sock.recv(1000):
            got += part
        sock.close()
        return got

    def upper(conn):
        conn.write(bytes(conn.take()).upper())

    with netpoll.Server(upper, "127.0.0.1", 0, workers=2, backend=BACKEND) as server:
        print(ask(server.port, b"line"))
    with http.Server(app, "127.0.0.1", 0, backend=BACKEND) as server:
        print(ask(server.port, b"GET /?query HTTP/1.0\\r\\n\\r\\n")[-5:])
    with netpoll.Scheduler(workers=2) as scheduler:
        async def hops(n):
            for _ in range(n):
                await netpoll.sched.sleep(0)
            return n
        print(scheduler.run(hops(100)))
    thread = threading.Thread(target=netpoll.run, args=(work(),), kwargs={"backend": BACKEND})
    thread.start()
    thread.join()
    """
    said = output(backend, code, before=ECHO)
    assert said == "b'LINE'\nb'query'\n100\nfine\n"


@pytest.mark.parametrize("what", ["RLIMIT_AS", pytest.param("RLIMIT_DATA", marks=in_the_long_lane)])
def test_little_memory(backend: str, what: str) -> None:
    """Loops, servers and pools until there is no more: exceptions, and no crash.

    What was made before works on.
    """
    code = f"""
    import resource
    from netpoll import http
    first = netpoll.new_event_loop(backend=BACKEND)
    first.run_until_complete(work())
    pages = int(open("/proc/self/statm").read().split()[0 if "{what}" == "RLIMIT_AS" else 5])
    limit = pages * resource.getpagesize() + (24 << 20)
    unlimited = resource.getrlimit(resource.{what})
    resource.setrlimit(resource.{what}, (limit, unlimited[1]))
    kept, errors = [], set()

    def attempt(make):  # any exception: the standard library's own are many
        try:
            kept.append(make())
            return True
        except Exception as error:
            errors.add(type(error).__name__)
            return False

    while attempt(lambda: netpoll.BufferPool(4 << 20, hugepages="off")):
        pass
    while attempt(lambda: bytearray(1 << 20)):
        pass
    for _ in range(10):
        attempt(lambda: netpoll.new_event_loop(backend=BACKEND))
    async def serve():
        async with netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0) as server:
            pass
    for _ in range(3):
        attempt(lambda: first.run_until_complete(serve()))
    resource.setrlimit(resource.{what}, unlimited)
    for one in kept:
        if hasattr(one, "close"):
            one.close()
    kept.clear()
    first.run_until_complete(echo_once())
    first.close()
    print(bool(errors))
    """
    done = run_program(backend, code, before=ECHO)  # what Python itself warns of is its affair
    assert (done.returncode, done.stdout) == (0, "fine\nTrue\n"), done.stderr


@in_the_long_lane
def test_a_memory_cgroup_that_is_full(tmp_path: Path, backend: str) -> None:
    """A worker that grows is killed by the kernel, in its cgroup, and replaced; others serve."""
    source = """
    import os
    kept = []
    def wsgi(environ, start_response):
        if environ["PATH_INFO"] == f"/grow/{os.getpid()}":  # that one, and no other
            for _ in range(64):
                kept.append(b"x" * (8 << 20))
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    """
    with (
        cgroup("memory", "memory.limit_in_bytes", "memory.max") as group,
        serving(tmp_path, backend, "app:wsgi", "--workers", "2", source=source) as running,
    ):
        before = running.pids(2)
        victim = min(before)
        group.add(victim)
        group.limit(96 << 20)

        def is_gone() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):  # as it is killed
                running.ask(f"/grow/{victim}")
            return victim not in children(running)

        wait_for(is_gone, 30)
        assert victim not in running.pids(2)
        assert "SIGKILL" in running.errors.read_text()
        assert running.ended() == 0


def test_no_huge_pages(backend: str) -> None:
    """None reserved: "require" says so, "auto" does without."""
    code = """
    pages = "/proc/sys/vm/nr_hugepages"
    if int(open(pages).read()):
        print("reserved here")
        sys.exit()
    try:
        netpoll.BufferPool(4 << 20, hugepages="require")
    except OSError as error:
        print("refused")
    with netpoll.BufferPool(4 << 20) as pool:
        with pool.reserve(1000) as buffer:
            buffer.write(b"x" * 1000)
    netpoll.run(work(), backend=BACKEND)
    """
    assert output(backend, code, before=ECHO) in ("reserved here\n", "refused\nfine\n")


def test_nothing_may_be_locked(backend: str) -> None:
    """RLIMIT_MEMLOCK 0, and RLIMIT_NOFILE of 64: auto finds what it may."""
    command = [sys.executable, restricted.__file__, "--memlock-kib", "0"]
    code = program(ECHO.replace("BACKEND", "'auto'") + "netpoll.run(work())\n")
    code = code.replace("sys.argv[1]", repr("auto"))
    code = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n" + code
    done = subprocess.run([*command, code], capture_output=True, text=True, timeout=60, env={})
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


# ---- disks --------------------------------------------------------------------------------------


def test_a_full_disk(backend: str, tmp_path: Path) -> None:
    """A tmpfs of 64 KiB: ENOSPC where something is written, and the loop goes on."""
    prefix = unshared("--mount")
    code = """
    import errno, subprocess
    folder = sys.argv[2]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)

    async def main():
        async with await netpoll.open(folder + "/file", "wb", buffering=0) as file:
            written = 0
            try:
                while True:
                    written += await file.write(bytes(10_000))
            except OSError as error:
                print(errno.errorcode[error.errno], written >= 40_000)
        await work()

    netpoll.run(main(), backend=BACKEND)
    """
    said = output(backend, code, str(tmp_path), before=ECHO, prefix=prefix)
    assert said == "ENOSPC True\nfine\n"


def test_an_access_log_on_a_full_disk(backend: str, tmp_path: Path) -> None:
    """Requests are answered; what could not be written is lost, and said once and again."""
    prefix = unshared("--mount")
    code = """
    import logging, subprocess
    from netpoll import http
    folder = sys.argv[2]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], check=True)
    lines = []
    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
    logging.getLogger().addHandler(Lines())

    async def main():
        async with http.Server(lambda request: b"x", "127.0.0.1", 0, backend=BACKEND,
                               access_log=folder + "/log") as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(30):
                writer.write(b"GET / HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n" * 50)
                for _ in range(50):
                    await reader.readuntil(b"\\r\\n\\r\\n")
                    await reader.readexactly(1)
            writer.close()
        print(0 < len(lines) < 100, any("No space left" in line for line in lines) or lines[:3])

    netpoll.run(main(), backend=BACKEND)
    """
    assert output(backend, code, str(tmp_path), before=ECHO, prefix=prefix) == "True True\n"


# ---- interpreters -------------------------------------------------------------------------------


def test_a_subinterpreter(backend: str) -> None:
    """It works there, or the import is refused with a sentence; the main one is not hurt."""
    code = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    inside = f'''if True:
        import sys
        sys.path[:] = {sys.path!r}
        try:
            import netpoll
            loop = netpoll.new_event_loop(backend={BACKEND!r})
            loop.run_until_complete(__import__("asyncio").sleep(0.001))
            loop.close()
            print("works", flush=True)
        except ImportError as error:
            print("ImportError", error, flush=True)
    '''
    number = interpreters.create()
    interpreters.run_string(number, inside)
    interpreters.destroy(number)
    netpoll.run(work(), backend=BACKEND)
    """
    first, _, rest = output(backend, code, before=ECHO).partition("\n")
    assert rest == "fine\n"
    assert first == "works" or (first.startswith("ImportError") and "interpreter" in first)


EMBEDDED = r"""
#include <Python.h>

int main(int argc, char **argv)
{
    (void)argc;
    Py_InitializeEx(0);
    int failed = PyRun_SimpleString(argv[1]);
    failed |= Py_FinalizeEx(); /* with loops, a server and a scheduler open */
    printf("finalized %d\n", failed);
    return failed != 0;
}
"""


def test_a_program_with_python_inside(backend: str, tmp_path: Path) -> None:
    """Initialised, and finalised with everything open. A second time in one process is more than
    extension modules of Cython can do."""
    source, binary = tmp_path / "embedded.c", tmp_path / "embedded"
    source.write_text(EMBEDDED)
    paths = sysconfig.get_paths()
    library = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    command = [
        compiler, str(source), "-o", str(binary), f"-I{paths['include']}", f"-L{library}",
        f"-Wl,-rpath,{library}", f"-lpython{version}", "-Wl,--export-dynamic",
        *(sysconfig.get_config_var("LIBS") or "").split(), "-lm",
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"this Python cannot be embedded: {built.stderr.splitlines()[-1]}")
    code = f"""
import sys
sys.path[:] = {sys.path!r}
import warnings
warnings.simplefilter("ignore")
import asyncio, netpoll

async def main():
    await asyncio.sleep(0.001)
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    sock = await asyncio.open_connection(*server.sockets[0].getsockname())
    return server, sock

loop = netpoll.new_event_loop(backend={backend!r})
kept = loop.run_until_complete(main())
server = netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0, backend={backend!r}).start()
scheduler = netpoll.Scheduler(workers=2)
assert scheduler.spawn(int).result() == 0
print("ran", flush=True)
"""
    env = os.environ | {"PYTHONHOME": sys.base_prefix}
    done = subprocess.run(
        [str(binary), code], capture_output=True, text=True, timeout=60 * SLOWNESS, env=env,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ran\nfinalized 0\n"), done.stderr


# ---- processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [pytest.param("fork", marks=in_the_long_lane), "spawn", "forkserver"],
)
def test_processes_of_every_kind_with_a_preload(backend: str, tmp_path: Path, method: str) -> None:
    """multiprocessing's three ways; the fork server has imported netpoll and used a loop."""
    (tmp_path / "used.py").write_text(
        "import asyncio, netpoll\n"
        "def use(backend):\n"
        "    async def main():\n"
        "        await asyncio.sleep(0.001)\n"
        "        return asyncio.get_running_loop().backend\n"
        "    return netpoll.run(main(), backend=backend)\n"
        "use('auto')\n"
    )
    (tmp_path / "main.py").write_text(
        "import multiprocessing, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import used\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context(sys.argv[1])\n"
        "    if sys.argv[1] == 'forkserver':\n"
        "        context.set_forkserver_preload(['used'])\n"
        "    with context.Pool(2) as pool:\n"
        "        print(pool.map(used.use, [sys.argv[2]] * 4))\n"
    )
    done = subprocess.run(
        [sys.executable, "main.py", method, backend],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=60 * SLOWNESS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{[backend] * 4}\n"), done.stderr


def test_exec_with_an_inherited_listener(backend: str) -> None:
    """A program that becomes its own successor: who connects meanwhile is served by that one."""
    code = """
    async def main(listener):
        async def answer(reader, writer):
            writer.write(sys.argv[2].encode())
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(answer, sock=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        print(await reader.read(), flush=True)
        writer.close()

    if sys.argv[2] == "first":
        listener = socket.create_server(("127.0.0.1", 0))
        loop = netpoll.new_event_loop(backend=BACKEND)
        loop.run_until_complete(main(listener.dup()))
        waiting = socket.create_connection(listener.getsockname())
        os.set_inheritable(listener.fileno(), True)
        os.set_inheritable(waiting.fileno(), True)
        # The loop is neither closed nor stopped: its descriptors end with the exec.
        numbers = [str(listener.fileno()), str(waiting.fileno())]
        code = sys.orig_argv[sys.orig_argv.index("-c") + 1]
        os.execv(sys.executable, [sys.executable, "-c", code, BACKEND, "second", *numbers])
    listener, waiting = (socket.socket(fileno=int(number)) for number in sys.argv[3:])
    listener.setblocking(False)
    waiting.setblocking(False)

    async def second():
        loop = asyncio.get_running_loop()
        serving = asyncio.ensure_future(main(listener))
        print(await loop.sock_recv(waiting, 10), flush=True)
        await serving
        left = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{n}")]
        print(sum("io_uring" in name for name in left), sum("eventpoll" in name for name in left))

    netpoll.run(second(), backend=BACKEND)
    """
    said = output(backend, code, "first", before=ECHO)
    rings = "1 0" if backend == "uring" else "0 1"
    assert said == f"b'first'\nb'second'\nb'second'\n{rings}\n"


# ---- the sysctl ---------------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("NETPOLL_SYSCTL"),
    reason="changes kernel.io_uring_disabled of the whole machine; NETPOLL_SYSCTL=1 allows it",
)
@pytest.mark.parametrize("value", ["1", "2"])
def test_io_uring_is_switched_off(value: str) -> None:
    """The real thing; what netpoll makes of its refusal, the filters of other tests show."""
    path = Path("/proc/sys/kernel/io_uring_disabled")
    if not path.exists():
        pytest.skip("no such sysctl before Linux 6.6")
    before = path.read_text()
    code = """
    if sys.argv[2] == "1":  # privileged processes may: become one that is not
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    loop = netpoll.new_event_loop()
    loop.run_until_complete(echo_once())
    print(loop.backend, "io_uring_disabled" in loop.backend_reason)
    """
    try:
        path.write_text(value)
        done = run_program("auto", code, value, before=ECHO)
    except OSError as error:
        pytest.skip(f"the sysctl cannot be set here: {error}")
    finally:
        if path.read_text() != before:
            path.write_text(before)
    assert (done.returncode, done.stdout) == (0, "epoll True\n"), done.stderr
