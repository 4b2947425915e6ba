"""The other machine: who is let in, what is done for whom, and a run over a real second network."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import _native, cli, wire
from netpoll.bench.arms import ARMS
from netpoll.bench.cores import choose_pinning
from netpoll.bench.errors import ServerError, UsageError
from netpoll.bench.hosts import Agent, RemoteLoad, RemoteServer
from netpoll.bench.wire import AGENT, HARNESS, Refused, greet, parse_address, read_token

from ..support import SLOWNESS

TINY = ["--rounds", "2", "--duration-s", "0.1", "--warmup-s", "0.01"]


# ---- the token and the address ----------------------------------------------------------------


def token_file(folder: Path, text: str = "", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text((text or secrets.token_hex(32)) + "\n")
    path.chmod(mode)
    return path


def test_a_token_is_secret_and_long(tmp_path: Path) -> None:
    assert read_token(token_file(tmp_path, "x" * 16)) == b"x" * 16
    for text, mode, words in (
        ("x" * 15, 0o600, "has 15 bytes"),
        ("x" * 5000, 0o600, "bytes; it needs 16 to 4096"),
        ("x" * 32, 0o640, "others can read the token"),
        ("x" * 32, 0o604, "chmod 600"),
    ):
        with pytest.raises(UsageError, match=words):
            read_token(token_file(tmp_path, text, mode))
    with pytest.raises(UsageError, match="cannot read the token"):
        read_token(tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:65536", "host:-1"])
def test_an_address_has_a_host_and_a_port(text: str) -> None:
    assert parse_address("host:80") == ("host", 80)
    with pytest.raises(ValueError, match="is no address"):
        parse_address(text)


# ---- the greeting -----------------------------------------------------------------------------

TOKEN = b"t" * 32


@contextlib.contextmanager
def other_end(act: Callable[[socket.socket], Any]) -> Iterator[tuple[socket.socket, list[Any]]]:
    """A socket whose other end is in the hands of `act`, and what that said in the end."""
    ours, theirs = socket.socketpair()
    said: list[Any] = []

    def run() -> None:
        with theirs:
            try:
                said.append(act(theirs))
            except (Refused, EOFError, OSError) as error:
                said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            yield ours, said
    finally:
        thread.join()


def test_two_that_have_the_token_understand_each_other() -> None:
    def agent(sock: socket.socket) -> Any:
        channel = greet(sock, TOKEN, AGENT)
        channel.send([*channel.receive(5), "back"])
        return channel.receive(5)

    with other_end(agent) as (sock, said):
        channel = greet(sock, TOKEN, HARNESS)
        channel.send(["there"])
        assert channel.receive(5) == ["there", "back"]
        channel.send("end")
    assert said == ["end"]


def test_another_token_is_refused_at_both_ends() -> None:
    for wrong in (AGENT, HARNESS):
        other = HARNESS if wrong == AGENT else AGENT
        with other_end(lambda sock, wrong=wrong: greet(sock, b"w" * 32, wrong)) as (sock, said):
            with pytest.raises((Refused, EOFError)):
                greet(sock, TOKEN, other)
        assert isinstance(said[0], Exception)


def test_who_sends_back_what_it_was_sent_is_refused() -> None:
    """A code is of one end: an agent cannot be made to say what proves a harness."""

    def mirror(sock: socket.socket) -> None:
        line = wire.Lines(sock).line(wire.GREETING_MAX_BYTES, 5)
        nonce = line.split(b" ")[1]
        sock.sendall(nonce + b" " + b"0" * wire.CODE_DIGITS + b"\n")

    with other_end(mirror) as (sock, _):
        with pytest.raises(Refused, match="does not have this token"):
            greet(sock, TOKEN, AGENT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "speaks something else"),
        (b"\n", "speaks something else"),
        (b"x" * 1000, "too long"),
        (b"x" * 1000 + b"\n", "too long"),
        (b"\xff\xfe \xfd\n", "does not have this token"),
        (b"", "has closed the connection"),
    ],
)
def test_a_stranger_is_refused(text: bytes, words: str) -> None:
    def stranger(sock: socket.socket) -> None:
        assert sock.recv(1000).startswith(wire.GREETING)
        sock.sendall(text)

    with other_end(stranger) as (sock, _):
        with pytest.raises((Refused, EOFError), match=words):
            greet(sock, TOKEN, AGENT)


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "GREETING_TIMEOUT_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(Refused, match="nothing was said"):
        greet(ours, TOKEN, AGENT)


def channels() -> tuple[wire.Channel, wire.Channel]:
    ours, theirs = socket.socketpair()
    ends = ((ours, HARNESS), (theirs, AGENT))
    harness, agent = (wire.Channel(wire.Lines(sock), b"key", role) for sock, role in ends)
    return harness, agent


def changed(line: bytes) -> list[bytes]:
    """What could be made of a message on its way: changed, repeated, without its code."""
    code, _, text = line.partition(b" ")
    return [code + b" " + text.replace(b"1", b"2"), b"0" * len(code) + b" " + text, text, b""]


@pytest.mark.parametrize("number", range(4))
def test_a_changed_message_is_refused(number: int) -> None:
    harness, agent = channels()
    with harness.sock, agent.sock:
        harness.send({"rate": 1})
        line = agent.sock.recv(1000).rstrip(b"\n")
        harness.sock.sendall(changed(line)[number] + b"\n")
        with pytest.raises(Refused, match="not the other end's"):
            agent.receive(5)


def test_a_repeated_message_and_ones_own_are_refused() -> None:
    harness, agent = channels()
    with harness.sock, agent.sock:
        harness.send("once")
        line = agent.sock.recv(1000)
        harness.sock.sendall(line * 2)
        assert agent.receive(5) == "once"
        with pytest.raises(Refused):
            agent.receive(5)
    harness, agent = channels()
    with harness.sock, agent.sock:
        harness.send("mine")
        agent.sock.sendall(agent.sock.recv(1000))
        with pytest.raises(Refused):
            harness.receive(5)


# ---- an agent ---------------------------------------------------------------------------------


@contextlib.contextmanager
def agent_process(token: Path, listen: str, *before: str) -> Iterator[str]:
    """An agent in a process of its own; gives its address. `before`: what runs it."""
    words = ["-m", "netpoll", "bench", "agent", "--listen", listen, "--token-file", str(token)]
    process = subprocess.Popen(
        [*before, sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert "listening on " in line, process.stderr.read()
        yield line.split()[-1]
    finally:
        process.terminate()  # not SIGINT: who is started in the background may ignore it
        _, errors = process.communicate(timeout=20 * SLOWNESS)
    assert (process.returncode, errors) == (0, "")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return token_file(tmp_path_factory.mktemp("token"))


@pytest.fixture(scope="module")
def address(token: Path) -> Iterator[str]:
    with agent_process(token, "127.0.0.1:0") as where:
        yield where


@pytest.fixture
def agent(address: str, token: Path) -> Iterator[Agent]:
    with Agent(address, read_token(token)) as found:
        yield found


START = {"arm": "floor-epoll", "mode": "-", "bulk": False, "malloc": "none"}
LOAD = {"connections": 2, "size_bytes": 64, "stall_s": 2.0}


def test_its_machine_is_described(agent: Agent) -> None:
    assert agent.environment["kernel"] == os.uname().release
    checked = agent.ask("check", arms=["floor-epoll", "asyncio"])
    assert set(checked) == {"floor-epoll", "asyncio"}


def test_a_server_and_a_load_of_it(agent: Agent) -> None:
    server = RemoteServer(agent, **START)
    assert server.address[0] == "127.0.0.1"
    assert not server.has_ended()
    before = server.cpu_time()
    with RemoteLoad(agent, -1, address=server.address, **LOAD) as load:
        result = load.run(0.1)
        assert load.run(0.1, 100)["requests_all"] <= 10
    assert result["requests"] > 0 and result["load_cpu_ns"] > 0
    assert sum(count for _, count in result["histogram"]) == result["requests_all"]
    assert (server.cpu_time() - before).total_ns > 0
    assert server.run_delay_ns() is not None
    server.kill()
    with pytest.raises(ServerError, match="no such server"):
        server.cpu_time()


def test_faults_are_told(agent: Agent) -> None:
    server = RemoteServer(agent, **START)
    with RemoteLoad(agent, -1, address=server.address, **LOAD) as load:
        pid = next(pid for pid in children_of(agent) if b"netpoll.bench.server" in words_of(pid))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(_native.LoadError):
            for _ in range(3):
                load.run(0.5)
    assert server.has_ended(5)
    assert "killed by signal 9" in server.last_words()
    with pytest.raises(_native.LoadError):
        RemoteLoad(agent, -1, address=server.address, **LOAD)


def words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children_of(agent: Agent) -> list[int]:
    """Below the agent's process, which has the other end of the socket's port."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if f"bench\0agent\0--listen\0{AT}".encode() in words_of(parent):
                found.append(int(stat.parent.name))
    return found


AT = "127.0.0.1:0"


def test_what_a_session_has_started_ends_with_it(address: str, token: Path) -> None:
    with Agent(address, read_token(token)) as agent:
        server = RemoteServer(agent, **START)
        socket.create_connection(server.address).close()
    with Agent(address, read_token(token)):  # which is let in when the first one has ended
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)


def test_a_window_ends_with_its_harness(address: str, token: Path) -> None:
    stop, wake = os.pipe()
    try:
        with Agent(address, read_token(token)) as agent:
            server = RemoteServer(agent, **START)
            with RemoteLoad(agent, stop, address=server.address, **LOAD) as load:
                threading.Timer(0.2, os.write, (wake, b"x")).start()
                with pytest.raises(_native.LoadStopped):
                    load.run(300)
            with pytest.raises(ServerError, match="is gone"):
                agent.ask("environment")
    finally:
        os.close(stop)
        os.close(wake)
    with Agent(address, read_token(token)) as agent:
        assert agent.environment["kernel"]


@pytest.mark.parametrize(
    ("do", "words", "sentence"),
    [
        ("exec", {}, "'exec' is no do here"),
        ("start", START | {"arm": "sh"}, "'sh' is no arm here"),
        ("start", START | {"arm": ["asyncio"]}, "is no arm here"),
        ("start", START | {"mode": "protocol"}, "'protocol' is no mode here"),
        ("start", START | {"malloc": "evil"}, "'evil' is no malloc here"),
        ("check", {"arms": "asyncio"}, "a list of names"),
        ("check", {"arms": ["../x"]}, "is no arm here"),
        ("cpu", {"server": 99}, "no such server"),
        ("cpu", {"server": True}, "has to be a number"),
        ("run", {"load": 1, "duration_s": 1e9, "rate_per_s": 0}, "from 0 to 3600"),
        ("run", {"load": 99, "duration_s": 1, "rate_per_s": 0}, "no such load"),
        ("load", LOAD | {"address": ["127.0.0.1", 0]}, "port has to be"),
        ("load", LOAD | {"address": "127.0.0.1:80"}, "a host and a port"),
        ("load", LOAD | {"address": ["127.0.0.1", 9], "connections": 1.5}, "a whole number"),
        ("load", LOAD | {"address": ["127.0.0.1", 9], "size_bytes": 1 << 40}, "size_bytes has"),
        ("send", {"sizes_bytes": []}, "a list of up to"),
    ],
)
def test_nothing_else_is_done(agent: Agent, do: str, words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ServerError) as error:
        agent.ask(do, **words)
    assert sentence in str(error.value)
    assert agent.environment["kernel"]  # and the session goes on


def test_no_arm_of_an_agent_is_a_command() -> None:
    assert not [name for name, arm in ARMS.items() if arm.command]


def test_who_is_not_let_in(address: str, token: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is not to be had"):
        Agent(address, b"another token, that is long enough")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        nobody = "{}:{}".format(*sock.getsockname())
    with pytest.raises(ServerError, match="there is no agent"):
        Agent(nobody, read_token(token))
    with socket.create_connection(parse_address(address)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        sock.settimeout(10 * SLOWNESS)
        greeting = sock.recv(1000)
        assert greeting.startswith(wire.GREETING)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
    with Agent(address, read_token(token)) as agent:
        assert agent.environment["kernel"]


# ---- the commands -----------------------------------------------------------------------------


def echo(*words: str, folder: Path) -> tuple[int, dict[str, Any]]:
    files = ["--json", str(folder / "r.json"), "--html", str(folder / "r.html")]
    arms = ["--arms", "asyncio,floor-epoll", "--modes", "protocol", "--cells", "4x64"]
    code = cli.main(["echo", *arms, *TINY, *words, *files])
    return code, json.loads((folder / "r.json").read_text())


@pytest.mark.parametrize("which", ["server", "load", "both"])
def test_a_run_with_other_machines(which: str, address: str, token: Path, tmp_path: Path) -> None:
    secret = ["--token-file", str(token)]
    hosts = {name: [f"--{name}-host", address] for name in ("server", "load")}
    with contextlib.ExitStack() as stack:
        if which == "both":
            second = stack.enter_context(agent_process(token, "127.0.0.1:0"))
            words = [*hosts["server"], "--load-host", second]
        else:
            words = hosts[which]
        code, document = echo(*words, *secret, folder=tmp_path)
    assert code == 0, document["rows"]
    expected = {"server", "load"} if which == "both" else {which}
    assert set(document["settings"]["hosts"]) == expected
    assert address in document["environment"]["pinning"]["sentence"]
    for row in document["rows"]:
        assert (row["rounds"], row["fault"]) == (2, None)
        assert row["cpu_us"]["median"] > 0
    assert all(sample["load_cpu_ns"] > 0 for sample in document["samples"])
    assert f"Machine of the {'load' if which == 'load' else 'server'}" in (
        (tmp_path / "r.html").read_text()
    )


def test_sends_from_one_machine_to_the_other(address: str, token: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "z.json"), "--html", str(tmp_path / "z.html")]
    words = ["--sizes", "64KiB", "--max-bytes", "1MiB", "--rounds", "1", "--token-file", str(token)]
    with agent_process(token, "127.0.0.1:0") as second:
        for hosts in (["--load-host", address], ["--load-host", address, "--server-host", second]):
            assert cli.main(["zerocopy", *words, *hosts, *files]) == 0
            document = json.loads((tmp_path / "z.json").read_text())
            assert {row["path"] for row in document["rows"]} == {"network"}
            assert {row["way"] for row in document["rows"]} >= {"plain", "pinned"}
            assert all(row["cpu_ns_per_kib"] > 0 for row in document["rows"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--server-host", "127.0.0.1:1"], "give the --token-file"),
        (["--server-host", "a:1", "--load-host", "a:1", "--token-file", "t"], "one of the two"),
        (["--server-host", "a:1", "--token-file", "missing"], "cannot read the token"),
    ],
)
def test_what_makes_no_sense(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["echo", "--no-files", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_guests_stay_here(address: str, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = ["--server-host", address, "--token-file", str(token), "--no-files"]
    for words in (["--server", "x=socat {port}"], ["--loop", "x=asyncio:new_event_loop"]):
        assert cli.main(["echo", *hosts, *words]) == 2
        assert "on this machine only" in capsys.readouterr().err
    assert cli.main(["zerocopy", "--paths", "network", "--no-files"]) == 2
    assert "needs a --load-host" in " ".join(capsys.readouterr().out.split())
    assert choose_pinning().sentence() != ""


# ---- two networks -----------------------------------------------------------------------------


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a pair of devices between them: 10.118.0.1 and 10.118.0.2."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("there is no program 'ip' here")
    names = [f"netpoll-{os.getpid()}-{end}" for end in ("a", "b")]
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made: {error.stderr.decode().strip()}")
            stack.callback(ip, "netns", "del", name)
        first, second = names
        ip(
            "-n",
            first,
            "link",
            "add",
            "np0",
            "type",
            "veth",
            "peer",
            "name",
            "np0",
            "netns",
            second,
        )
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.118.0.{number}/24", "dev", "np0")
            for device in ("np0", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield first, second


def test_over_a_pair_of_devices(token: Path, tmp_path: Path) -> None:
    with two_namespaces() as (first, second):
        inside = {name: ["ip", "netns", "exec", name] for name in (first, second)}
        with agent_process(token, "10.118.0.1:0", *inside[first]) as where:
            words = ["echo", "--server-host", where, "--token-file", str(token), *TINY]
            words += ["--arms", "asyncio,netpoll-epoll,floor-epoll", "--modes", "protocol"]
            words += ["--cells", "4x64,2x128KiB", "--json", str(tmp_path / "r.json")]
            words += ["--html", str(tmp_path / "r.html")]
            done = subprocess.run(
                [*inside[second], sys.executable, "-m", "netpoll", "bench", *words],
                capture_output=True,
                text=True,
                timeout=120 * SLOWNESS,
            )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "r.json").read_text())
    assert [row["rounds"] for row in document["rows"]] == [2] * 6
    assert f"servers on {where}, load on this machine" in " ".join(done.stdout.lower().split())
