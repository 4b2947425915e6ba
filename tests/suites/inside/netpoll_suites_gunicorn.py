"""A pytest plugin for gunicorn's tests of its ASGI worker, which start their servers with docker.

Here the servers are started as plain processes when a test asks for `docker compose up`: gunicorn
itself where the loop under test is asyncio's, which makes it the control, and netpoll.http.Server
otherwise; and nginx before both of them. The tests and their applications are as they are.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FRAMEWORKS = ("django", "fastapi", "starlette", "quart", "litestar", "blacksheep")
FIRST_FRAMEWORK_PORT = 8001
PLAIN_PORT, SECURE_PORT = 8000, 8445

_run = subprocess.run
_children: list[subprocess.Popen[bytes]] = []
_scratch = Path(tempfile.mkdtemp(prefix="np-gunicorn-"))


def _serve(app: str, port: int, cwd: Path, *certificate: Path, **env: str) -> None:
    """An application on the server under test."""
    if os.environ["NETPOLL_SUITES_LOOP"] == "asyncio":
        command = [sys.executable, "-m", "gunicorn", app, "-k", "asgi", "-b", f"127.0.0.1:{port}"]
        command += ["--worker-connections", "1000", "--asgi-disconnect-grace-period", "0"]
        for option, path in zip(("--certfile", "--keyfile"), certificate, strict=False):
            command += [option, str(path)]
        if certificate:
            command += ["--http-protocols", "h2,h1"]
    else:
        command = [sys.executable, "-m", "netpoll_suites_serve", app, str(port)]
        command += [str(path) for path in certificate]
    _start(command, cwd, env)


def _start(command: list[str], cwd: Path, env: dict[str, str]) -> None:
    _children.append(
        subprocess.Popen(command, cwd=cwd, env=os.environ | env, stdin=subprocess.DEVNULL)
    )


def _start_nginx(folder: Path) -> None:
    """With the suite's own configuration, on this machine's names and paths."""
    text = (folder / "nginx.conf").read_text()
    text = text.replace("gunicorn-asgi-ssl:8443", f"127.0.0.1:{SECURE_PORT}")
    text = text.replace("gunicorn-asgi:8000", f"127.0.0.1:{PLAIN_PORT}")
    text = text.replace("/certs/", f"{folder}/certs/").replace("/var/log/nginx/", f"{_scratch}/")
    text = text.replace("/var/run/nginx.pid", f"{_scratch}/nginx.pid")
    text = text.replace("resolver 127.0.0.11 ipv6=off valid=10s;", "")
    text = text.replace("listen 8444 ssl;", "listen 8444 ssl http2;").replace("http2 on;", "")
    (_scratch / "nginx.conf").write_text(text)
    _start([os.environ["NGINX"], "-c", f"{_scratch}/nginx.conf", "-g", "daemon off;"], folder, {})


def _up(folder: Path) -> None:
    if folder.name == "asgi_framework_compat":
        for port, name in enumerate(FRAMEWORKS, FIRST_FRAMEWORK_PORT):
            app = "asgi:application" if name == "django" else "app:app"
            cwd = folder / "frameworks" / f"{name}_app"
            _serve(app, port, cwd, DJANGO_SETTINGS_MODULE="settings")
        return
    certificate = (folder / "certs" / "server.crt", folder / "certs" / "server.key")
    _serve("apps.main_app:app", PLAIN_PORT, folder)
    _serve("apps.main_app:app", SECURE_PORT, folder, *certificate)
    _start_nginx(folder)


def _down() -> None:
    for child in _children:
        child.terminate()
    for child in _children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    _children.clear()


def run(command: Any, *args: Any, **options: Any) -> Any:
    """subprocess.run, and what docker would do."""
    if not isinstance(command, list) or command[0] != "docker":
        return _run(command, *args, **options)
    if "up" in command:
        _up(Path(options["cwd"]))
    elif "down" in command:
        _down()
    return subprocess.CompletedProcess(command, 0, "", "")


@atexit.register
def _end() -> None:
    _down()
    shutil.rmtree(_scratch, ignore_errors=True)


subprocess.run = run  # type: ignore[assignment]
