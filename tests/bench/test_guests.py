"""Arms that the command line brings: any loop, any server. One that crashes or hangs is reported,
and spoils nobody's figures."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import cli, guests
from netpoll.bench.arms import ARMS
from netpoll.bench.httparms import HTTP_ARMS, PEERS, server_guest
from netpoll.bench.httpworks import WORKS
from netpoll.bench.process import check_arms
from netpoll.bench.registry import all_kinds

SHORT = ["--quick", "--rounds", "1", "--duration-s", "0.3", "--warmup-s", "0.01"]

LOOPS = """
import asyncio, os, signal, time

class Quiet(asyncio.SelectorEventLoop):
    '''Serves as asyncio does.'''

class Hanging(asyncio.SelectorEventLoop):
    def run_until_complete(self, future):
        time.sleep(600)

class Crashing(asyncio.SelectorEventLoop):
    def run_until_complete(self, future):
        self.call_later(0.0, lambda: None)
        self.create_task(crash_soon())
        return super().run_until_complete(future)

async def crash_soon():
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGSEGV)

def stillborn():
    os.kill(os.getpid(), signal.SIGSEGV)
"""

ECHO = """
import socket, sys, threading
def echo(client):
    while data := client.recv(65536):
        client.sendall(data)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""


def run(command: str, folder: Path, *options: str, code: int) -> dict:
    json_path, html_path = folder / "result.json", folder / "result.html"
    files = ["--json", str(json_path), "--html", str(html_path)]
    assert cli.main([command, *options, *SHORT, *files]) == code
    assert html_path.stat().st_size
    document: dict = json.loads(json_path.read_text())
    return document


@pytest.fixture
def own_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of loops that the children of this process can import."""
    (tmp_path / "own_loops.py").write_text(LOOPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_any_loop_is_an_arm_and_a_bad_one_spoils_nobody(own_loops: None, tmp_path: Path) -> None:
    words = []
    for name in ("Quiet", "Hanging", "Crashing", "stillborn", "missing"):
        words += ["--loop", f"{name.lower()}=own_loops:{name}"]
    cells = ["--cells", "2x64", "--modes", "protocol"]
    document = run("echo", tmp_path, "--arms", "asyncio", *cells, *words, code=1)
    rows = {row["arm"]: row for row in document["rows"]}
    assert set(rows) == {"asyncio", "quiet", "hanging", "crashing"}
    for name in ("asyncio", "quiet"):
        assert rows[name]["fault"] is None
        assert rows[name]["rounds"] == 1
        assert rows[name]["cpu_us"]["median"] > 0
    assert rows["hanging"]["fault"].startswith("the server stopped answering")
    assert "killed by signal 11" in rows["crashing"]["fault"]
    assert rows["hanging"]["rounds"] == rows["crashing"]["rounds"] == 0
    arms = document["arms"]
    assert arms["quiet"]["loop"] == "own_loops.Quiet"
    assert "killed by signal 11" in arms["stillborn"]["skipped"]
    assert arms["missing"]["skipped"] == "own_loops has no missing()"
    assert not {"quiet", "hanging"} & set(ARMS)  # they were here for one run


def test_any_server_is_an_arm_of_echo(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "deaf.py").write_text(ECHO.replace("client.sendall(data)", "data"))
    words = ["--server", f"threads={sys.executable} {tmp_path / 'echo.py'} {{port}}"]
    words += ["--server", f"deaf={{python}} {tmp_path / 'deaf.py'} {{port}}"]
    words += ["--server", "absent=no-such-program {port}"]
    options = ["--arms", "floor-epoll", "--cells", "2x64", *words]
    document = run("echo", tmp_path, *options, code=1)
    rows = {row["arm"]: row for row in document["rows"]}
    assert set(rows) == {"floor-epoll", "threads", "deaf"}
    assert rows["threads"]["requests"] > 0
    assert rows["threads"]["cpu_vs_floor_epoll"] > 0
    assert rows["floor-epoll"]["fault"] is None
    assert rows["deaf"]["fault"] and "requests" not in rows["deaf"]
    assert "no program 'no-such-program'" in document["arms"]["absent"]["skipped"]


def test_any_server_is_an_arm_of_http(tmp_path: Path) -> None:
    programs = "{python} -m netpoll.bench.programs"
    words = ["--server", f"again={programs}.floor_http {{port}}"]
    asgi = f"env NETPOLL_BACKEND=epoll {programs}.netpoll_http {{port}} asgi {{asgi}}"
    words += ["--server", f"mine={asgi}"]
    options = ["--arms", "floor", "--works", "hello", "--connections", "4", *words]
    document = run("http", tmp_path, *options, code=0)
    rows = {(row["arm"], row["work"]): row for row in document["rows"]}
    assert rows["again", "hello"]["mode"] == "own"
    assert rows["mine", "hello"]["mode"] == "asgi"
    assert rows["mine", "hello"]["cpu_vs_floor"] > 0


def test_uvicorn_runs_on_any_loop(own_loops: None, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("httptools")
    pytest.importorskip("websockets")
    options = ["--arms", "floor", "--works", "hello", "--connections", "4", "--paced", "0"]
    loops = ["--loop", "quiet=own_loops:Quiet", "--loop", "stillborn=own_loops:stillborn"]
    rows = run("http", tmp_path, *options, *loops, code=1)["rows"]
    faults = {row["arm"]: row["fault"] for row in rows}
    assert faults["floor"] is faults["quiet"] is None
    assert "killed by signal 11" in faults["stillborn"]


@pytest.mark.parametrize("name", ["rloop", "rsloop", "zuvloop", "aiofastnet"])
def test_loops_that_are_known_by_name(name: str) -> None:
    """One that is installed makes a loop; another is known not to be there."""
    facts = check_arms([ARMS[name]])[name]
    if find_spec(name) is None:
        assert facts == {"unavailable": f"not installed (pip install {name})"}
    else:
        assert facts["loop"]


def test_the_known_loops_are_arms_of_both_kinds() -> None:
    for name in ("rloop", "rsloop", "zuvloop", "aiofastnet"):
        assert name in all_kinds()["echo"].peers
        assert f"uvicorn-{name}" in PEERS
    assert not set(PEERS) & set(all_kinds()["http"].default_arms)
    assert set(PEERS) <= set(HTTP_ARMS)


def test_a_command_says_which_interface_it_calls() -> None:
    assert server_guest("a", ("x", "{asgi}", "{port}")).interface == "asgi"
    wsgi = server_guest("a", ("x", "--app={wsgi}", "{port}"))
    assert wsgi.command == ("x", "--app={app}", "{port}")
    own = server_guest("a", ("x", "{port}"))
    assert own.interface == "own"
    assert not own.can(WORKS["starlette"])  # it cannot run an application
    assert wsgi.can(WORKS["hello"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--loop", "module:factory"], "has no name"),
        (["--loop", "a b=module:factory"], "has no name"),
        (["--loop", "a=factory"], "write module:factory"),
        (["--server", "a=serve 8000"], "has to say {port}"),
        (["--server", "a=serve '{port}"], "is no command"),
    ],
)
def test_a_guest_that_makes_no_sense(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["echo", *words])
    assert sentence in capsys.readouterr().err


def test_a_name_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["asyncio=a:b"], ["x=a:b", "--loop", "x=c:d"]):
        assert cli.main(["echo", "--loop", *words]) == 2
        assert "more than one arm" in capsys.readouterr().err
    assert "x" not in ARMS


def test_other_kinds_take_no_guests() -> None:
    for name, kind in all_kinds().items():
        options = cli.parser().parse_args([name])
        assert hasattr(options, "loop") == kind.takes_guests
        with guests.admitted(kind, options) as names:
            assert names == ()
        if not kind.takes_guests:
            with pytest.raises(NotImplementedError):
                kind.loop_guest("a", "b:c")
            with pytest.raises(NotImplementedError):
                kind.server_guest("a", ("b",))
