"""Every extension type, handled as nobody should: an exception, never a signal, never a hang.

The types are found by walking the package, so a new one is tested by being there. mishandle.py has
what is done to them.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import netpoll
from tests.support import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]


def mishandle(backend: str, part: str) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-m", "tests.regress.mishandle", backend, part],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300 * SLOWNESS,
    )
    assert child.stdout, child.stderr
    report: dict[str, Any] = json.loads(child.stdout)
    assert not report["faults"], "\n\n".join(report["faults"])
    assert not report["mistakes"], "\n".join(report["mistakes"])
    return report


def test_half_made_objects() -> None:
    """Type.__new__(Type), subclasses that forget super().__init__(), wrong arguments and self."""
    report = mishandle("epoll", "fresh")
    assert report["pieces"] > 80, "the walk finds no types any more"


def test_native_functions(backend: str) -> None:
    """Any argument, closed and half-made loops, closed sockets."""
    report = mishandle(backend, "functions")
    assert report["pieces"] > 20, "the walk finds no functions any more"


# Extension types that no Python code meets.
INTERNAL = {
    "netpoll._native.transport.address.Address": "its key, a tuple, is what programs get",
    "netpoll._native.memory.pool.PoolBlock": "what a Buffer holds",
    "netpoll._native.http.crew.Crew": "a pool of threads, which Python code has a class around",
    "netpoll._native.http.crew.Seat": "where a thread of it waits",
    "netpoll._native.http.crew.Runner": "what its threads run",
    "netpoll._native.http.crew.Calls": "the same",
    "netpoll._native.http.wsgi.ApplicationRunner": "the same",
    "netpoll._native.server.host.FileSpan": "a file on its way, in a flow",
    "netpoll._native.sched.home.FutureWait": "what a scheduler's task waits on",
    "netpoll._native.server.secure.Secured": "the TLS half of a connection's struct",
    "netpoll._native.tls.engine.NativeSession": "an engine, inside a TlsLayer",
    "netpoll._native.tls.engine.Session": "an engine, inside a TlsLayer",
    "netpoll._native.server.host.Shipment": "a zero-copy send on its way",
    "netpoll._native.transport.stream_reader.WriterExchange": "inside a StreamWriter",
    "netpoll._native.loop.watcher.Spent": "the owner of an event that was handed out already",
    "netpoll._native.server.door.Doors": "called by native code only",
    "netpoll._native.server.door.Door": "a connection that nobody knows of yet",
    "netpoll._native.server.idle.Wheel": "a worker's timers",
    "netpoll._native.http.access.AccessLines": "called by native code only",
    "netpoll._native.http.arrivals.Arrivals": "called by native code only",
    "netpoll._native.loop.ready.Ready": "given to await only",
    "netpoll._native.http.wire.Service": "called by native code only",
    "netpoll._native.http.websocket.Handshake": "inside a Socket",
    "netpoll._native.http.websocket.Socket": "what a WebSocket is derived from",
    "netpoll._native.http.answer_head.HeadWriter": "called by native code only",
    "netpoll._native.http.request_head.HeaderPairs": "called by native code only",
    "netpoll._native.server.addresses.Addresses": "called by native code only",
    "netpoll._native.http.wire.Exchange": "a request that is being answered; its kinds are met",
    "netpoll._native.http.encoder.Encoder": "called by native code only",
    "netpoll._native.http.compression.StreamEncoder": "encodes one answer, for native code",
    "netpoll._native.http.raw.RawExchange": "inside a Request's connection",
    "netpoll._native.server.protocol.Protocol": "what an HttpProtocol is derived from",
}
RING_ONLY = "netpoll._native.files.operations.", "netpoll._native.loop.sqe."


def test_live_objects(backend: str) -> None:
    """Alive, closed, and when their loop is closed; none can be copied or pickled."""
    report = mishandle(backend, "live")
    assert not report["copied"]
    missed = [
        name
        for name in report["types"]
        if name not in report["met"]
        and name not in INTERNAL
        and "__pyx_scope" not in name
        and not (backend == "epoll" and name.startswith(RING_ONLY))
    ]
    assert not missed, "makers.py makes none of these: add a maker, or a reason to INTERNAL"


def test_an_ordinary_loop_runs_its_own_turns(backend: str) -> None:
    """What looks for a replaced _run_once knows the native one; else each turn costs more."""

    class Loop(netpoll.EventLoop):
        def _run_patched_turns(self) -> None:
            raise AssertionError("nobody has replaced _run_once")

    loop = Loop(backend)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
