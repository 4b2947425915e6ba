"""Flask and Django, served unchanged: forms and files that are uploaded, streams, files, errors."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for

UPLOAD = os.urandom(300_000)
BOUNDARY = "c0ffee"


def lines() -> Iterator[str]:
    for number in range(1000):
        yield f"{number}\n"


def flask_application(path: pathlib.Path) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)

    @app.post("/form")
    def form() -> Any:
        request = flask.request
        uploaded = request.files["file"].read()
        return flask.jsonify(name=request.form["name"], digest=hashlib.sha256(uploaded).hexdigest())

    @app.post("/raw")
    def raw() -> Any:
        return flask.jsonify(digest=hashlib.sha256(flask.request.get_data()).hexdigest())

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(lines(), mimetype="text/plain")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(path, mimetype="application/octet-stream")

    @app.get("/fail")
    def fail() -> Any:
        raise KeyError("on purpose")

    @app.get("/where")
    def where() -> Any:
        return flask.jsonify(url=flask.request.url, client=flask.request.remote_addr)

    return app


def django_application(path: pathlib.Path) -> Any:
    pytest.importorskip("django")
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path as route

    def form(request: Any) -> Any:
        uploaded = request.FILES["file"].read()
        digest = hashlib.sha256(uploaded).hexdigest()
        return JsonResponse({"name": request.POST["name"], "digest": digest})

    def raw(request: Any) -> Any:
        return JsonResponse({"digest": hashlib.sha256(request.body).hexdigest()})

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(lines(), content_type="text/plain")

    def file(request: Any) -> Any:
        return FileResponse(path.open("rb"), content_type="application/octet-stream")

    def fail(request: Any) -> Any:
        raise KeyError("on purpose")

    def where(request: Any) -> Any:
        url, client = request.build_absolute_uri(), request.META["REMOTE_ADDR"]
        return JsonResponse({"url": url, "client": client})

    views: dict[str, Callable[[Any], Any]] = {
        "form": form,
        "raw": raw,
        "stream": stream,
        "file": file,
        "fail": fail,
        "where": where,
    }
    routes = type("Routes", (), {"urlpatterns": [route(name, v) for name, v in views.items()]})
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="of the tests",
            DATA_UPLOAD_MAX_MEMORY_SIZE=None,
            LOGGING_CONFIG=None,
        )
        django.setup()
    settings.ROOT_URLCONF = routes
    django.urls.clear_url_caches()
    return WSGIHandler()


@pytest.mark.parametrize("make", [flask_application, django_application])
def test_a_framework_is_served(
    http_serving: HttpServing, threads: int, tmp_path: pathlib.Path, make: Callable[..., Any]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(UPLOAD)
    digest = hashlib.sha256(UPLOAD).hexdigest()
    server = http_serving(make(path), threads=threads)
    client = http_serving.client()
    part = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=name\r\n\r\nsent\r\n--{BOUNDARY}\r\n"
        "Content-Disposition: form-data; name=file; filename=file\r\n"
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = part.encode() + UPLOAD + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    answer = client.ask("/form", "POST", body, content_type=kind)
    assert (answer.status, b"sent" in answer.body, digest.encode() in answer.body) == (
        200,
        True,
        True,
    )
    assert digest.encode() in client.ask("/raw", "POST", UPLOAD).body
    answer = client.ask("/stream")
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.body == "".join(lines()).encode()
    answer = client.ask("/file")
    assert (answer.body, answer.header("content-length")) == (UPLOAD, "300000")
    assert client.ask("/file", "HEAD").body == b""
    wait_for(lambda: server.stats()["file_bytes"] == len(UPLOAD))
    assert client.ask("/fail").status == 500
    assert client.ask("/nowhere").status == 404
    answer = client.ask("/where?a=%20b")
    assert b"http://test/where?a=%20b" in answer.body and b"127.0.0.1" in answer.body
