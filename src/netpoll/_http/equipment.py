"""What a deployment asks of a server beside its application; each worker gets its own of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from netpoll._http.codings import CODINGS, PACKAGES, Coder, maker_of
from netpoll._http.metrics import Metrics
from netpoll._http.negotiate import best_coding
from netpoll._http.pool import ThreadPool
from netpoll._native.http.compression import Compression as NativeCompression
from netpoll._native.http.meter import Meter
from netpoll._native.http.own_pages import OwnPages
from netpoll._native.http.protocol import HttpProtocol
from netpoll._native.http.request_id import RequestIds
from netpoll._native.http.wire import Application
from netpoll._telemetry.sources import Source

if TYPE_CHECKING:  # of the stub alone
    from netpoll._native.http.meter import _Reading

__all__ = ["Compression", "Equipment"]

KIB = 1024
COMPRESS_THREADS_COUNT = 2
COMPRESS_END_S = 10.0
TYPES = (
    "text/*",
    "*/*+json",
    "*/*+xml",
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/x-icon",
)

Report = Callable[[str, BaseException | None], object]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


@dataclass(frozen=True)
class Compression:
    """How answers are compressed for clients that accept it (RFC 9110 12.5.3).

    codings: "br", "zstd" and "gzip", the preferred ones first; None: those whose packages are
        installed (`pip install netpoll[http]`). gzip needs none.
    min_bytes: shorter answers are sent as they are; those whose length is not known are not short.
    thread_min_bytes: a part that is as long is compressed in a thread.
    types: media types that are worth it; "*" stands for any of one half ("text/*", "*/*+json").
    gzip_level, br_level, zstd_level: the more, the smaller and the slower.
    """

    codings: tuple[str, ...] | None = None
    min_bytes: int = KIB
    thread_min_bytes: int = 128 * KIB
    types: tuple[str, ...] = TYPES
    gzip_level: int = 6
    br_level: int = 4
    zstd_level: int = 3

    def __post_init__(self) -> None:
        for coding in self.codings or ():
            if coding not in CODINGS:
                raise ValueError(f"codings has {', '.join(CODINGS)}, not {coding!r}")
        if self.min_bytes < 0 or self.thread_min_bytes <= 0:
            raise ValueError("min_bytes must not be negative, and thread_min_bytes be positive")

    def _makers(self) -> dict[str, Callable[[], Coder]]:
        makers = {}
        levels = {"br": self.br_level, "zstd": self.zstd_level, "gzip": self.gzip_level}
        for coding in CODINGS if self.codings is None else self.codings:
            try:
                makers[coding] = maker_of(coding, levels[coding])
            except ImportError as error:
                if self.codings is not None:
                    raise RuntimeError(
                        f"the coding {coding!r} needs the package {PACKAGES[coding]}: "
                        "pip install 'netpoll[http]'"
                    ) from error
        return makers

    def _suits(self, media_type: bytes) -> bool:
        name = media_type.partition(b";")[0].strip().lower().decode("latin-1")
        kind, _, subtype = name.partition("/")
        _, plus, suffix = subtype.rpartition("+")
        forms = {name, f"{kind}/*", f"*/*+{suffix}" if plus else name}
        return not forms.isdisjoint(self.types)


class Equipment:
    """Of one server."""

    def __init__(
        self,
        server: Source,
        report: Report,
        compression: Compression | None,
        health_path: str | None,
        metrics_path: str | None,
        request_id_header: str | None,
    ) -> None:
        self._report = report
        self._meters: list[Meter] = []
        self._pages: dict[bytes, Callable[[str | None], Answer]] = {}
        self._request_id_header = request_id_header
        if health_path is not None:
            self._pages[path_of("health_path", health_path)] = healthy
        self.is_measured = metrics_path is not None
        if metrics_path is not None:
            self._pages[path_of("metrics_path", metrics_path)] = Metrics(server).page
        if request_id_header is not None:
            RequestIds(request_id_header.encode("latin-1"))  # says what is wrong with it
        self._compression = compression
        self._makers = compression._makers() if compression is not None else {}
        self._threads = ThreadPool(COMPRESS_THREADS_COUNT, "netpoll-compress")

    def around(self, application: Application) -> Application:
        return OwnPages(application, self._pages, self._report) if self._pages else application

    def equip(self, protocol: HttpProtocol) -> None:
        meter = ids = coding = None
        if self.is_measured:
            meter = Meter()
            self._meters.append(meter)
        if self._request_id_header is not None:
            ids = RequestIds(self._request_id_header.encode("latin-1"))
        if self._compression is not None:
            coding = NativeCompression(
                partial(best_coding, offered=tuple(self._makers)),
                self._makers,
                self._compression._suits,
                self._submit,
                self._report,
                self._compression.min_bytes,
                self._compression.thread_min_bytes,
            )
        protocol.equip(meter, ids, coding)

    def readings(self) -> list[_Reading]:
        """What the workers have counted; empty where nothing asked for it."""
        return [meter.read() for meter in self._meters]

    def page(self, path: str, accept: str | None) -> Answer | None:
        """One of the server's own pages, for another server that shows them."""
        page = self._pages.get(path.encode("latin-1", "replace"))
        return page(accept) if page is not None else None

    def close(self) -> None:
        """All connections are over: waits for the parts that are being compressed."""
        self._threads.close()
        self._threads.join(time.monotonic() + COMPRESS_END_S)

    def _submit(self, job: Callable[[], None]) -> None:
        try:
            self._threads.submit(job)
        except RuntimeError:  # the system has no thread: the loop's own does it
            job()


def healthy(accept: str | None) -> Answer:
    """That its loop answers is what is asked."""
    return 200, [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")], b"ok\n"


def path_of(option: str, path: str) -> bytes:
    if not path.startswith("/"):
        raise ValueError(f"{option} must begin with a slash, not {path!r}")
    return path.encode("latin-1")
