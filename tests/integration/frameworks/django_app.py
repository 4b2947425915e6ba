from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

from . import endless, events

LACKS = frozenset({"state", "background", "websocket"})  # Channels has these
urlpatterns: list[Any] = []


async def as_json(request: HttpRequest) -> HttpResponseBase:
    import json

    return JsonResponse({"got": json.loads(request.body)})


def form(request: HttpRequest) -> HttpResponseBase:  # in a thread
    file: Any = request.FILES["file"]
    return JsonResponse({"name": request.POST["name"], "file": file.name, "size": file.size})


async def stream(request: HttpRequest) -> HttpResponseBase:
    """Django has the whole request before a view is called."""

    async def parts() -> Any:
        while part := request.read(10_000):
            yield part.upper()

    return StreamingHttpResponse(parts())


async def sse(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def fail(request: HttpRequest) -> HttpResponseBase:
    raise ZeroDivisionError("asked for")


def make(seen: set[str]) -> Any:
    async def gone(request: HttpRequest) -> HttpResponseBase:
        return StreamingHttpResponse(endless(seen))

    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="a test")
        django.setup()
    calls = {"json": as_json, "form": form, "stream": stream, "events": sse, "fail": fail}
    urlpatterns[:] = [path(name, call) for name, call in (calls | {"gone": gone}).items()]
    django.urls.clear_url_caches()
    return get_asgi_application()
