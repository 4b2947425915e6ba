"""What docs/security.md promises: limits, operations of the ring, descriptors, modes, TLS."""

import re
import socket
import ssl
import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import http
from netpoll._serve import options
from netpoll._serve.application import make_context, make_limits
from tests.http.serving import children, serving
from tests.tls import authority, certificate

from .machines import output

ROOT = Path(__file__).parents[2]
PAGE = ROOT.joinpath("docs", "security.md").read_text()

# ---- limits -------------------------------------------------------------------------------------


def defaults(kind: Any) -> dict[str, str]:
    return {field.name: repr(field.default) for field in fields(kind)}


def test_the_page_has_every_limit_and_its_default() -> None:
    table = PAGE.split("| limit | `netpoll.Server`", 1)[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) ?\|$", table, re.MULTILINE)
    for column, kind in ((1, netpoll.ServerLimits), (2, http.HttpLimits)):
        assert {row[0]: row[column] for row in rows if row[column]} == defaults(kind)


def test_serve_has_the_same() -> None:
    parsed = options.parse(["app:app"])
    assert make_limits(parsed) == http.HttpLimits()
    assert parsed.host == "127.0.0.1"
    assert (parsed.proxy_headers, parsed.proxy_protocol) == (False, False)
    assert (parsed.forwarded_allow_ips, parsed.proxy_allow_from) == 2 * ("127.0.0.1,::1",)


# ---- operations of the ring ---------------------------------------------------------------------

OPERATIONS = {
    "accept": "ACCEPT", "recv": "RECV", "recv_multishot": "RECV", "send": "SEND",
    "sendmsg": "SENDMSG", "send_zc": "SEND_ZC", "sendmsg_zc": "SENDMSG_ZC",
    "poll_add": "POLL_ADD", "poll_multishot": "POLL_ADD", "cancel64": "ASYNC_CANCEL", "nop": "NOP",
}  # fmt: skip


def test_the_page_has_every_operation_of_a_ring() -> None:
    """Those of netpoll.uring excepted: it can do any."""
    folder = ROOT / "csrc" / "io" / "uring"
    found = set()
    for path in folder.glob("np_uring*.c"):
        names = re.findall(r"^ +io_uring_prep_(\w+)\(", path.read_text(), re.MULTILINE)
        found |= {OPERATIONS[name] for name in names}
    found |= set(
        re.findall(r"np_sqe_fill\(sqe, IORING_OP_(\w+)", (folder / "np_sqe.h").read_text())
    )
    assert len(found) > 10
    assert set(re.findall(r"`IORING_OP_(\w+)`", PAGE)) == found


# ---- descriptors --------------------------------------------------------------------------------

OF_EVERY_KIND = """
import asyncio, os, socket, subprocess, sys, tempfile
import netpoll
from netpoll import http

LIST = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"

async def main(folder):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(10, print)
    left, right = socket.socketpair()
    loop.add_reader(left, print)
    servers = [
        await loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
        await loop.create_unix_server(asyncio.Protocol, folder + "/unix"),
    ]
    streams = [
        await asyncio.open_connection(*servers[0].sockets[0].getsockname()),
        await asyncio.open_unix_connection(folder + "/unix"),
    ]
    datagrams, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    reading, writing = os.pipe()
    pipe, _ = await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb"))
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1)
    file = await netpoll.open(folder + "/file", "w+")
    await file.write("text")
    text = folder + "/public"
    os.mkdir(text)
    with open(text + "/large", "wb") as large:
        large.write(bytes(200_000))
    files = http.StaticFiles(text)
    servers += [
        netpoll.Server(lambda conn: conn.take(), "127.0.0.1", 0, workers=2, backend=BACKEND),
        netpoll.Server(lambda conn: conn.take(), unix=folder + "/own", backend=BACKEND),
        http.Server(files.answer, "127.0.0.1", 0, backend=BACKEND, access_log=folder + "/log"),
    ]
    for server in servers[2:]:
        server.start()
    streams.append(await asyncio.open_connection("127.0.0.1", servers[2].port))
    streams.append(await asyncio.open_unix_connection(folder + "/own"))
    reader, writer = await asyncio.open_connection("127.0.0.1", servers[4].port)
    writer.write(b"GET /large HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")  # and it is not read
    await reader.readexactly(100)
    scheduler = netpoll.Scheduler(workers=2)
    worker_loop = scheduler.loop(0, backend=BACKEND)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), worker_loop).result()
    other = netpoll.new_event_loop(backend=BACKEND)  # never run: its ring is not enabled
    before = {name for name in os.listdir("/proc/self/fd")}
    print(len(before) > 25, [
        os.readlink(f"/proc/self/fd/{name}") for name in before
        if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}")
        and os.get_inheritable(int(name))])
    command = [sys.executable, "-S", "-c", LIST]
    print(subprocess.run(command, close_fds=False, capture_output=True, text=True).stdout, end="")
    child.kill()
    await child.wait()
    await file.close()
    for _, writer in [*streams, (reader, writer)]:
        writer.transport.abort()
    for server in servers[:2]:
        server.close()
    for server in servers[2:]:
        await asyncio.to_thread(server.close, 0) if server is servers[2] else await server.aclose()
    pipe.close()
    datagrams.close()
    loop.remove_reader(left)
    other.close()
    scheduler.close()
    await asyncio.sleep(0.01)

with tempfile.TemporaryDirectory() as folder:
    netpoll.run(main(folder), backend=BACKEND)
"""


def test_a_child_gets_three_descriptors(backend: str) -> None:
    """Whatever its parent has opened; the fourth is that of its own look at the list."""
    assert output(backend, OF_EVERY_KIND) == "True []\n[0, 1, 2, 3]\n"


LISTING_APP = """
import os

def wsgi(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    found = [fd for fd in numbers if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")]
    leaks = [os.readlink(f"/proc/self/fd/{fd}") for fd in found if os.get_inheritable(fd)]
    return [f"{len(found) > 3} {leaks}".encode()]
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_what_an_application_starts_gets_three(
    tmp_path: Path, backend: str, workers: tuple[str, ...]
) -> None:
    """Also of a listening socket that the command inherited."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = str(listener.fileno())
        with serving(
            tmp_path, backend, "app:wsgi", "--fd", fd, *workers,
            source=LISTING_APP, pass_fds=[listener.fileno()],
        ) as running:  # fmt: skip
            assert running.ask() == "True []"
            assert running.ended() == 0


# ---- modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700)])
def test_modes_of_unix_sockets(backend: str, umask: int, mode: int) -> None:
    code = f"""
    import asyncio, os, socket, stat, tempfile
    import netpoll

    async def main(folder):
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(asyncio.Protocol, folder + "/stream")
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=folder + "/datagrams", family=socket.AF_UNIX)
        async with netpoll.Server(lambda conn: None, unix=folder + "/own", backend=BACKEND):
            print([oct(stat.S_IMODE(os.stat(f"{{folder}}/{{name}}").st_mode))
                   for name in ("stream", "datagrams", "own")])
        transport.close()
        server.close()

    os.umask({umask})
    with tempfile.TemporaryDirectory() as folder:
        netpoll.run(main(folder), backend=BACKEND)
    """
    assert output(backend, code) == f"{[oct(mode)] * 3}\n"


@pytest.mark.parametrize(("args", "mode"), [((), 0o755), (("--umask", "007"), 0o770)])
def test_modes_of_what_serve_makes(
    tmp_path: Path, backend: str, args: tuple[str, ...], mode: int
) -> None:
    path = tmp_path / "unix"
    with serving(
        tmp_path, backend, "app:wsgi", "--uds", str(path), "--workers", "1",
        "--access-logfile", "log", "--pid", "pid", *args, umask=0o022,
    ) as running:  # fmt: skip
        assert running.ask()
        assert len(children(running)) == 1
        assert stat.S_IMODE(path.stat().st_mode) == mode
        for name in ("log", "pid"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & mode, name
        assert running.ended() == 0


# ---- TLS ----------------------------------------------------------------------------------------


def facts(context: ssl.SSLContext) -> dict[str, Any]:
    names = "options minimum_version maximum_version verify_flags verify_mode check_hostname"
    return {name: getattr(context, name) for name in names.split()} | {
        "ciphers": [cipher["name"] for cipher in context.get_ciphers()]
    }


def test_tls_of_serve_is_the_ssl_modules(tmp_path: Path) -> None:
    pem, trusted = tmp_path / "chain.pem", tmp_path / "ca.pem"
    made = certificate("localhost")
    parts = [made.private_key_pem, *made.cert_chain_pems]
    pem.write_bytes(b"".join(part.bytes() for part in parts))
    authority().cert_pem.write_to_path(str(trusted))
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    args = ["app:app", "--ssl-certfile", str(pem)]
    context = make_context(options.parse(args))
    assert context is not None
    assert facts(context) == facts(plain)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    asking = make_context(options.parse([*args, "--ssl-ca-certs", str(trusted)]))
    assert asking is not None
    assert facts(asking) == facts(plain) | {"verify_mode": ssl.CERT_REQUIRED}


def test_a_client_checks_certificates_and_names(backend: str) -> None:
    """ssl=True: refused is who is signed by nobody, and who has another name."""
    code = """
    import asyncio, ssl
    import netpoll, trustme

    authority = trustme.CA()

    def served(name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    async def ask(name, client):
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0,
                                              ssl=served(name)) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client,
                                                          server_hostname="localhost")
                writer.close()
                print("connected")
            except ssl.SSLCertVerificationError as error:
                print(error.verify_code)
            await asyncio.sleep(0.01)

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        await ask("localhost", True)
        await ask("other.example", trusting)
        await ask("localhost", trusting)

    netpoll.run(main(), backend=BACKEND)
    """
    said = output(backend, code).split()
    assert said[0] in ("18", "19", "20", "21")  # no issuer that is trusted
    assert said[1:] == ["62", "connected"]  # X509_V_ERR_HOSTNAME_MISMATCH


# ---- before it runs -----------------------------------------------------------------------------


def test_importing_opens_and_fetches_nothing() -> None:
    code = (
        "import os, sys\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        "import netpoll, netpoll.http, netpoll.sched, netpoll.tls\n"
        "print(set(os.listdir('/proc/self/fd')) == before, 'threading' in sys.modules and "
        "len(os.listdir('/proc/self/task')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True 1\n"
