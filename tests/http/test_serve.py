"""`netpoll serve`: its options, and one process that serves."""

import os
import re
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from netpoll._serve import options as serve_options
from netpoll._serve import systemd
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

from .serving import complaint, serving

# ---- one process --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (("app:asgi",), "asgi"),
        (("app:raw", "--interface", "raw"), "raw"),
        (("app:wsgi", "--root-path", "/here"), " 1  /here False http"),
        (("app:make", "--factory", "--interface", "wsgi"), " 1   False http"),
        (("app:wsgi", "--threads", "0"), " 1   False http"),
    ],
)
def test_what_is_served(tmp_path: Path, backend: str, args: tuple[str, ...], answer: str) -> None:
    with serving(tmp_path, backend, *args) as running:
        assert running.ask().lstrip("0123456789") == answer
        assert running.ended(signal.SIGINT) == 0


def test_a_handler_of_connections(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:stream") as running:
        with running.connect() as client:
            client.sendall(b"abc")
            assert client.recv(10) == b"cba"
        assert running.ended() == 0


def test_a_unix_socket(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "sock"
    with serving(tmp_path, backend, "app:asgi", "--uds", str(path)) as running:
        assert running.where == str(path)
        assert running.ask() == "asgi"
        assert running.ended() == 0
    assert not path.exists()


def test_inherited_sockets(tmp_path: Path, backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        with serving(tmp_path, backend, "app:asgi", "--fd", str(fd), pass_fds=(fd,)) as running:
            assert running.where == f"port {listener.getsockname()[1]}"
            assert running.ask() == "asgi"
    with serving(
        tmp_path, backend, "app:asgi", "--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/s"
    ) as running:
        assert running.ask() == "asgi"
        running.where = f"{tmp_path}/s"
        assert running.ask() == "asgi"


def test_tls(tmp_path: Path, backend: str) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(tmp_path, backend, "app:wsgi", "--ssl-certfile", "cert.pem") as running:
        with context.wrap_socket(running.connect(), server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.endswith(b" https")


def test_headers_of_each_answer(tmp_path: Path, backend: str) -> None:
    args = ("app:asgi", "--header", "X-One: a:b", "--header", "x-two:", "--no-server-header")
    with serving(tmp_path, backend, *args) as running, running.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head = b"".join(iter(lambda: client.recv(4096), b"")).partition(b"\r\n\r\n")[0]
        lines = head.split(b"\r\n")
        assert b"x-one: a:b" in lines and b"x-two: " in lines
        assert b"server:" not in head


def test_the_access_log(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:asgi", "--access-log") as running:
        assert running.ask('/a"b?c') == "asgi"
        running.send(signal.SIGTERM)
        assert running.process.stdout is not None
        line = running.process.stdout.read().decode()
    when = r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000"
    assert re.fullmatch(rf'127\.0\.0\.1 - - \[{when}\] "GET /a\\"b\?c HTTP/1\.1" 200 4\n', line)


def test_a_stop_waits_for_requests_and_a_second_signal_does_not(
    tmp_path: Path, backend: str
) -> None:
    for path, is_answered in (("/slow", True), ("/stuck", False)):
        with serving(tmp_path, backend, "app:wsgi") as running, running.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            time.sleep(0.2)
            running.send(signal.SIGTERM)
            if not is_answered:
                time.sleep(0.2)
                running.send(signal.SIGTERM)
            begin_s = time.monotonic()
            assert running.process.wait(20 * SLOWNESS) == 0
            assert time.monotonic() - begin_s < 10 * SLOWNESS
            assert (b"200 OK" in client.recv(1000)) is is_answered


def test_it_ends_after_a_number_of_requests(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:asgi", "--max-requests", "3") as running:
        for _ in range(3):
            assert running.ask() == "asgi"
        assert running.process.wait(20 * SLOWNESS) == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nowhere:f", "no module 'nowhere'"),
        ("app:nothing", "no 'nothing'"),
        ("app:not_callable", "called"),
    ],
)
def test_an_application_that_is_not_there(
    tmp_path: Path, app: str, message: str, workers: tuple[str, ...]
) -> None:
    told = complaint(tmp_path, app, *workers)
    assert re.search(rf"^netpoll: .*{message}", told, re.MULTILINE), told
    assert told.count("netpoll: ") == 1 and "Traceback" not in told


@pytest.mark.parametrize("workers", [(), ("--workers", "3")])
@pytest.mark.parametrize("source", ["1 / 0", "import not_there", "def f(:"])
def test_an_application_that_fails(tmp_path: Path, source: str, workers: tuple[str, ...]) -> None:
    """Its traceback is told once, and begins with its own code."""
    (tmp_path / "broken.py").write_text(f"# a comment\n{source}\n")
    told = complaint(tmp_path, "broken:app", *workers)
    assert told.count("importing it has failed") == 1
    assert told.count("Error: ") == 1
    assert told.count(f'File "{tmp_path}/broken.py", line 2') == 1
    assert "importlib" not in told and "_serve" not in told


def test_a_configuration_is_checked(tmp_path: Path) -> None:
    assert complaint(tmp_path, "app:asgi", "--check-config", code=0) == ""
    assert "no 'nothing'" in complaint(tmp_path, "app:nothing", "--check-config")


def test_a_file_with_the_number_of_the_process(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "pid"
    with serving(tmp_path, backend, "app:asgi", "--pid", str(path)) as running:
        assert int(path.read_text()) == running.process.pid
        assert running.ended() == 0
    assert not path.exists()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_log_files_are_opened_again(tmp_path: Path, backend: str, workers: tuple[str, ...]) -> None:
    path = tmp_path / "access"
    args = ("app:asgi", "--access-logfile", str(path), "--access-log-format", "json", *workers)
    with serving(tmp_path, backend, *args) as running:
        assert running.ask("/one") == "asgi"
        wait_for(lambda: "/one" in path.read_text())
        path.rename(tmp_path / "old")
        running.send(signal.SIGUSR1)
        wait_for(path.exists)
        assert running.ask("/two") == "asgi"
        wait_for(lambda: path.exists() and "/two" in path.read_text() + old(tmp_path))
        wait_for(lambda: running.ask("/three") and "/three" in path.read_text())
        assert running.ended() == 0


def old(folder: Path) -> str:
    """Where a worker writes that has not opened its own file again yet."""
    return (folder / "old").read_text()


def test_a_stop_at_once(tmp_path: Path, backend: str) -> None:
    with serving(tmp_path, backend, "app:asgi") as running, running.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
        begin_s = time.monotonic()
        assert running.ended(signal.SIGQUIT) == 0
        assert time.monotonic() - begin_s < 20 * SLOWNESS


def test_sockets_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = os.dup(listener.fileno())
        monkeypatch.setattr(systemd, "FIRST_FD", fd)
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", "1")
        assert systemd.inherited_sockets() == []
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        (found,) = systemd.inherited_sockets()
        with found:
            assert found.getsockname() == listener.getsockname()
        assert "LISTEN_FDS" not in os.environ
        assert systemd.inherited_sockets() == []


# ---- options ------------------------------------------------------------------------------------


def test_where_options_come_from(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(
        '[serve]\napp = "a:b"\nbacklog = 1\nworkers = 3\nreload = true\nroot-path = "/toml"\n'
        'bind = ["x:1", "y:2"]\n'
    )
    environ = {"NETPOLL_BACKLOG": "2", "NETPOLL_ROOT_PATH": "/env", "NETPOLL_SERVER_HEADER": "no"}
    options = serve_options.parse(["--config", str(config), "--root-path", "/args"], environ)
    assert (options.app, options.backlog, options.workers) == ("a:b", 2, 3)
    assert (options.root_path, options.bind, options.reload) == ("/args", ["x:1", "y:2"], True)
    assert options.server_header is False
    environ["NETPOLL_CONFIG"] = str(config)
    assert serve_options.parse(["c:d", "--server-header"], environ).app == "c:d"


PLACES = {"host": "127.0.0.1", "port": 8000, "bind": None, "uds": None, "fd": None}


@pytest.mark.parametrize(
    ("args", "environ", "toml", "places"),
    [
        (["--bind", "a:1"], {"NETPOLL_BIND": "b:2"}, 'bind = ["c:3"]', {"bind": ["a:1"]}),
        ([], {"NETPOLL_BIND": "b:2"}, 'bind = ["c:3"]', {"bind": ["b:2"]}),
        (["--port", "9"], {"NETPOLL_BIND": "b:2"}, "", {"port": 9}),
        (["--uds", "/a"], {"NETPOLL_FD": "3"}, 'bind = ["c:3"]', {"uds": "/a"}),
        (["-b", "a:1"], {}, 'uds = "/c"', {"bind": ["a:1"]}),
        (["--fd", "3"], {"NETPOLL_PORT": "9"}, "", {"fd": 3}),
        ([], {"NETPOLL_HOST": "b"}, 'uds = "/c"\nport = 9', {"host": "b", "port": 9}),
        (["--port", "9"], {}, 'host = "c"', {"host": "c", "port": 9}),
    ],
)
def test_where_to_listen_is_said_by_who_counts_most(
    tmp_path: Path,
    args: list[str],
    environ: dict[str, str],
    toml: str,
    places: dict[str, object],
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(toml)
    options = serve_options.parse(["a:b", "--config", str(config), *args], environ)
    assert {name: getattr(options, name) for name in PLACES} == PLACES | places


def test_lists_are_replaced(tmp_path: Path) -> None:
    environ = {"NETPOLL_HEADER": "a: 1,b: 2"}
    assert serve_options.parse(["a:b"], environ).header == ["a: 1", "b: 2"]
    assert serve_options.parse(["a:b", "--header", "c: 3"], environ).header == ["c: 3"]


def test_switches_and_their_contraries(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("no-reload = true\nno-access-log = false\nno_server_header = true\n")
    options = serve_options.parse(["a:b", "--config", str(config)], {"NETPOLL_NO_TOP": "yes"})
    assert (options.reload, options.access_log, options.server_header) == (False, True, False)
    assert options.top is False
    assert serve_options.parse(["a:b"], {"NETPOLL_NO_RELOAD": "0"}).reload is True


def test_permissions_are_octal_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "serve.toml"
    for word in ('"027"', '"0o27"'):
        config.write_text(f"umask = {word}\n")
        assert serve_options.parse(["a:b", "--config", str(config)], {}).umask == 0o27
    config.write_text("umask = 0o027\n")
    with pytest.raises(SystemExit):
        serve_options.parse(["a:b", "--config", str(config)], {})
    assert "umask is a string" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "environ", "message"),
    [
        ([], {}, "MODULE:APP"),
        (["app"], {}, "MODULE:APP"),
        (["a:b", "--workers", "0"], {}, "--workers"),
        (["a:b", "--uds", "x", "--fd", "3"], {}, "one way"),
        (["a:b", "--ssl-keyfile", "x"], {}, "--ssl-certfile"),
        (["a:b", "--header", "x"], {}, "--header"),
        (["a:b", "--forwarded-allow-ips", "x"], {}, "--forwarded-allow-ips"),
        (["a:b"], {"NETPOLL_WORKERS": "many"}, "NETPOLL_WORKERS: a number of 1 or more"),
        (["a:b"], {"NETPOLL_RELOAD": "perhaps"}, "NETPOLL_RELOAD is true or false"),
        (["a:b"], {"NETPOLL_INTERFACE": "cgi"}, "NETPOLL_INTERFACE: one of"),
        (["a:b", "--config", "/does/not/exist"], {}, "/does/not/exist"),
    ],
)
def test_options_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], args: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        serve_options.parse(args, environ)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("netpoll: ") and message in told


def test_a_file_with_an_unknown_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("werkers = 3\n")
    with pytest.raises(SystemExit):
        serve_options.parse(["a:b", "--config", str(config)], {})
    assert "no option 'werkers'" in capsys.readouterr().err


def test_help_names_every_option() -> None:
    parser = serve_options.make_parser()
    told = parser.format_help()
    for action in parser._actions:
        assert all(name in told for name in action.option_strings)


def test_an_env_file(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "env"
    path.write_text("# comment\n\nexport WORD='a word'\nOTHER = x=y\n")
    assert serve_options.read_env_file(str(path)) == {"WORD": "a word", "OTHER": "x=y"}
    with serving(tmp_path, backend, "app:wsgi", "--env-file", str(path)) as running:
        assert "1 a word" in running.ask()
    path.write_text("no equals sign\n")
    with pytest.raises(ValueError, match=":1: not NAME=VALUE"):
        serve_options.read_env_file(str(path))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a:b", "--worker", "2"], "there is no option --worker: is it --workers?"),
        (["a:b", "--loop", "uvloop"], "--loop is not here: the event loop is netpoll's"),
        (["a:b", "-k", "gevent"], "-k is not here: leave it out"),
        (["a:b", "--daemon"], "--daemon is not here"),
        (["a:b", "c:d"], "'c:d' is one word too many"),
        (["a:b", "--max-memory", "much"], "--max-memory: bytes as 65536, 64K, 512M or 2G"),
        (["a:b", "--timeout", "-3"], "--timeout"),
        (["a:b", "--port", "70000"], "--port: a port from 0 to 65535, not '70000'"),
        (["a:b", "--interface", "cgi"], "--interface: one of auto, asgi, wsgi, raw, stream"),
        (["a:b", "--env", "x"], "--env: NAME=VALUE, not 'x'"),
        (["a:b", "--umask", "9"], "--umask: permissions as 027, not '9'"),
        (
            ["a:b", "--proxy-allow-from", "10.0.0.1/8"],
            "--proxy-allow-from: 10.0.0.1/8 has host bits",
        ),
    ],
)
def test_what_to_do_is_said(
    capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        serve_options.parse(args, {})
    assert message in capsys.readouterr().err


def test_names_of_uvicorn_and_gunicorn() -> None:
    uvicorn = serve_options.parse(
        [
            *("main:app", "--host", "0.0.0.0", "--port", "80", "--workers", "4"),
            *("--reload-dir", "src", "--timeout-keep-alive", "5", "--limit-concurrency", "100"),
            *("--limit-max-requests", "1000", "--limit-max-requests-jitter", "10"),
            *("--timeout-graceful-shutdown", "10", "--timeout-worker-healthcheck", "7"),
            *("--ssl-certfile", "c", "--ssl-keyfile", "k", "--ssl-ciphers", "x", "--proxy-headers"),
            *("--forwarded-allow-ips", "*", "--root-path", "/x", "--no-server-header"),
            *("--header", "a:b", "--app-dir", "d", "--factory", "--lifespan", "on"),
            *("--h11-max-incomplete-event-size", "32768", "--no-access-log", "--uds", "/s"),
        ],
        {},
    )
    gunicorn = serve_options.parse(
        [
            *("main:app", "-w", "4", "--keep-alive", "5", "--worker-connections", "100"),
            *("--max-requests", "1000", "--max-requests-jitter", "10", "--graceful-timeout", "10"),
            *("-t", "7", "--certfile", "c", "--keyfile", "k", "--ciphers", "x"),
            *("--forwarded-allow-ips", "*", "--pythonpath", "d", "-b", "unix:/s", "-e", "A=1"),
            *("-p", "pid", "-m", "007", "--threads", "3", "--access-logfile", "-", "--reload"),
            *("--error-logfile", "e", "--limit-request-line", "4094", "--chdir", "x"),
            *(
                "--limit-request-fields",
                "50",
                "--proxy-protocol",
                "--proxy-allow-from",
                "10.0.0.0/8",
            ),
        ],
        {},
    )
    for name in (
        *("app", "workers", "timeout_keep_alive", "max_requests", "timeout"),
        *("max_requests_jitter", "timeout_graceful_shutdown", "ssl_certfile", "ssl_keyfile"),
        *("ssl_ciphers", "forwarded_allow_ips", "app_dir"),
    ):
        assert getattr(uvicorn, name) == getattr(gunicorn, name) is not None, name
    # One answers those that are too many, the other does not take them.
    assert (uvicorn.limit_concurrency, uvicorn.worker_connections) == (100, None)
    assert (gunicorn.limit_concurrency, gunicorn.worker_connections) == (None, 100)
    assert (uvicorn.limit_request_head, gunicorn.limit_request_line) == (32768, 4094)
    assert (gunicorn.umask, gunicorn.threads, gunicorn.limit_request_fields) == (7, 3, 50)


def test_a_project_and_the_usual_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text('[tool.netpoll.serve]\napp = "a:b"\nmax-memory = "1G"\n')
    options = serve_options.parse([], {"WEB_CONCURRENCY": "3"})
    assert (options.app, options.max_memory, options.workers) == ("a:b", 1 << 30, 3)
    assert serve_options.parse(["--config", "pyproject.toml"], {}).app == "a:b"
    project.write_text("this is another program's affair")
    assert serve_options.parse(["c:d"], {}).app == "c:d"
