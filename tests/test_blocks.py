"""Every block of Python on the site runs: each page's, in the scene that the page has in mind.

A scene is what stands around a block: names that it takes for granted, and what has to come out.
A block that needs none is a program, and runs as it is; one that serves is talked to. A new block
is found here by its first line, and fails until it runs or has its scene.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from netpoll.probe import choose_backend

from . import readme
from .support import TEST_TIMEOUT_S

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Scene(NamedTuple):
    before: str = ""
    after: str = ""
    needs: str = ""


MAIN = "import asyncio, netpoll\nasync def main(): await asyncio.sleep(0)\n"
HTTP = "from netpoll import http\ndef app(request): return b'hello'\n"
CLOSED = "for thing in (server, pages): thing.close()"
# A page and the first line of a block.
SCENES = {
    ("backends.md", "netpoll.run(main()"): Scene(MAIN, "loop.close()"),
    ("backends.md", "result = netpoll.probe()"): Scene("import netpoll"),
    ("turn.md", "config = netpoll.LoopConfig(slow_callback_ms=50)"): Scene(MAIN),
    ("benchmarks.md", "from netpoll.bench._native import Load"): Scene(
        "import netpoll\n"
        "server = netpoll.Server(lambda conn: conn.forward(conn.lease()), '127.0.0.1', 8888)\n"
        "server.start()",
        "server.close()",
    ),
    ("benchmarks.md", "from netpoll.bench.arms import CommandArm"): Scene(
        "import pathlib, os\n"
        "pathlib.Path('app.py').write_text('async def app(scope, receive, send): pass')",
        needs="uvicorn",
    ),
    ("buffers.md", "netpoll.new_event_loop"): Scene("import netpoll\nloop = \\"),
    ("buffers.md", "pool = netpoll.BufferPool"): Scene(
        "import netpoll\nheader, sent = b'head', []\n"
        "class connection:\n    write = staticmethod(lambda data: sent.append(bytes(data)))",
        "assert sent == [header]",
    ),
    ("observing.md", "telemetry.PrometheusCollector"): Scene(
        "import netpoll\nfrom netpoll import telemetry\n"
        "server = netpoll.Server(print, '127.0.0.1', 0)\nscheduler = netpoll.Scheduler(1)",
        "scheduler.close()",
        needs="prometheus_client",
    ),
    ("observing.md", "from opentelemetry.exporter"): Scene(
        "import netpoll\nfrom netpoll import telemetry\n"
        "server = netpoll.Server(print, '127.0.0.1', 0)\nscheduler = netpoll.Scheduler(1)\n"
        "import os\nos.environ['OTEL_EXPORTER_OTLP_TIMEOUT'] = '1'",
        "scheduler.close()",
        needs="opentelemetry.exporter.otlp.proto.http",
    ),
    ("observing.md", "server = http.Server(telemetry.traced"): Scene(
        HTTP + "from netpoll import telemetry\n", needs="opentelemetry.sdk"
    ),
    ("observing.md", "with telemetry.Window"): Scene(
        "import os, tempfile, netpoll\nfrom netpoll import telemetry\n"
        "os.environ['XDG_RUNTIME_DIR'] = tempfile.mkdtemp()\n"
        "server = netpoll.Server(print, '127.0.0.1', 0)\nscheduler = netpoll.Scheduler(1)\n"
        "def serve_for_ever(): assert os.listdir(os.environ['XDG_RUNTIME_DIR'] + '/netpoll')",
        "scheduler.close()",
    ),
    ("datagrams.md", "class Echo"): Scene(
        "import asyncio, netpoll\nloop = asyncio.get_running_loop()", "transport.close()"
    ),
    ("datagrams.md", "UDP_GRO = 104"): Scene(
        "import asyncio, socket\n"
        "transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(\n"
        "    asyncio.DatagramProtocol, local_addr=('127.0.0.1', 0))",
        "transport.close()",
    ),
    ("http-deployment.md", "from netpoll import http"): Scene(
        "import os\nos.mkdir('public')", "assert handler"
    ),
    ("http-deployment.md", 'http.Server(app, "127.0.0.1", 8000, compression'): Scene(HTTP),
    ("http-deployment.md", 'http.Server(app, "127.0.0.1", 8000, health_path'): Scene(
        HTTP, needs="prometheus_client"
    ),
    ("http-deployment.md", "server = http.Server"): Scene(HTTP, CLOSED, "prometheus_client"),
    ("http.md", "async def handler(request)"): Scene(
        "from netpoll import http", "http.Server(handler, '127.0.0.1', 0).start().close()"
    ),
    ("leases.md", "def on_data(conn)"): Scene(
        "import socket, netpoll\narchive = []",
        "server = netpoll.Server(on_data, '127.0.0.1', 0).start()\n"
        "sock = socket.create_connection(('127.0.0.1', server.port))\n"
        "sock.sendall(b'\\0\\0\\0\\2hirest')\n"
        "import time\n"
        "while not archive: time.sleep(0.01)\n"
        "assert bytes(archive[0]) == b'rest'\n"
        "archive.pop().release()\nserver.close()",
    ),
    ("raw-ring.md", "import netpoll"): Scene(needs="netpoll.uring"),
    ("raw-ring.md", "import os"): Scene(needs="netpoll.uring"),
    ("raw-ring.md", "from netpoll.uring import Ring"): Scene(needs="netpoll.uring"),
    ("scheduler.md", "import netpoll"): Scene(
        "done = []\ndef handle(n): done.append(n)", "assert len(done) == 1000"
    ),
    ("scheduler.md", "loop = scheduler.loop(0)"): Scene(
        "import asyncio, netpoll\nreader = None\n"
        "async def serve(): pass\nasync def session(reader): pass\n"
        "scheduler = netpoll.Scheduler(1).__enter__()",
        "scheduler.__exit__(None, None, None)",
    ),
    ("scheduler.md", "def handle(data"): Scene(
        "import asyncio, netpoll\nfrom netpoll.offload import offload, offload_data\n"
        "loop, host, port = asyncio.get_running_loop(), '127.0.0.1', 0\n"
        "scheduler = netpoll.Scheduler(1).__enter__()",
        "scheduler.__exit__(None, None, None)",
    ),
    ("scheduler.md", "from netpoll.testing"): Scene(MAIN),
    ("tls.md", "context = ssl"): Scene(
        "import asyncio, ssl\n"
        "class writer:\n    get_extra_info = staticmethod(lambda name: name)\n"
        "async def opened(host, port, ssl): return None, writer\n"
        "asyncio.open_connection = opened",
    ),
    ("tls.md", "netpoll.tls.engine()"): Scene("import netpoll, netpoll.tls"),
}
BLOCKS = [(page, code) for page in PAGES for code in readme.blocks(page)]
SERVES = re.compile(r"serve_forever\(\)|netpoll\.serve\(|signal\.pause\(\)")


def scene_of(page: Path, code: str) -> Scene | None:
    for (name, first), scene in SCENES.items():
        if page.name == name and code.startswith(first):
            return scene
    return None


def run_block(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=TEST_TIMEOUT_S
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def whole(scene: Scene, code: str) -> str:
    """A program: what awaits by itself is put into a coroutine."""
    text = f"{scene.before}\n{code}\n{scene.after}"
    for port in sorted(set(readme.PORT.findall(text))):
        text = text.replace(port, str(readme.free_port()))
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        inner = textwrap.indent(text, "    ")
        return f"import netpoll\nasync def block():\n{inner}\nnetpoll.run(block())\n"
    return text


@pytest.mark.parametrize(
    ("page", "code"), BLOCKS, ids=[f"{p.stem}-{n}" for n, (p, _) in enumerate(BLOCKS)]
)
def test_a_block(page: Path, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.chdir(tmp_path)
    if SERVES.search(code):
        if "take_line" in code:
            with readme.serving(code) as port:
                assert readme.exchange(port, b"word\r\n").startswith(b"WORD")
        else:
            readme.talk(code)
        return
    scene = scene_of(page, code) or Scene()
    if scene.needs:
        pytest.importorskip(scene.needs)
    if 'backend="uring"' in code or "import Ring" in code:
        choose_backend("uring")
    run_block(whole(scene, code))


def test_every_scene_has_its_block() -> None:
    unused = [
        key
        for key in SCENES
        if not any(page.name == key[0] and code.startswith(key[1]) for page, code in BLOCKS)
    ]
    assert unused == []


def test_a_block_that_does_not_run() -> None:
    with pytest.raises(AssertionError, match="NameError"):
        run_block(whole(Scene(), "import netpoll\nnot_defined_anywhere\n"))
