"""Content codings: gzip of the standard library, brotli and Zstandard of packages."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

__all__ = ["CODINGS", "Coder", "maker_of"]

# Best first: how much smaller the usual page gets for the CPU that it takes.
CODINGS = ("br", "zstd", "gzip")
PACKAGES = {"br": "brotli", "zstd": "zstandard"}
GZIP_WBITS = 31


class Coder(Protocol):
    """Encodes one body."""

    def encode(self, data: bytes) -> bytes:
        """A part, such that the peer can decode all of it at once."""

    def finish(self) -> bytes: ...

    def whole(self, data: bytes) -> bytes:
        """A whole body; instead of the other two."""


class Gzip:
    def __init__(self, level: int) -> None:
        self._level = level
        self._stream = zlib.compressobj(level, zlib.DEFLATED, GZIP_WBITS)

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()

    def whole(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush()


def brotli_maker(level: int) -> Callable[[], Coder]:
    brotli: Any = import_module("brotli")

    class Brotli:
        def __init__(self) -> None:
            self._stream = brotli.Compressor(quality=level)

        def encode(self, data: bytes) -> bytes:
            encoded: bytes = self._stream.process(data) + self._stream.flush()
            return encoded

        def finish(self) -> bytes:
            encoded: bytes = self._stream.finish()
            return encoded

        def whole(self, data: bytes) -> bytes:
            encoded: bytes = self._stream.process(data) + self._stream.finish()
            return encoded

    return Brotli


def zstd_maker(level: int) -> Callable[[], Coder]:
    new_stream, flush, last = zstd_functions(level)

    class Zstd:
        def __init__(self) -> None:
            self._stream = new_stream()

        def encode(self, data: bytes) -> bytes:
            encoded: bytes = self._stream.compress(data) + flush(self._stream)
            return encoded

        def finish(self) -> bytes:
            encoded: bytes = last(self._stream)
            return encoded

        def whole(self, data: bytes) -> bytes:
            encoded: bytes = self._stream.compress(data) + last(self._stream)
            return encoded

    return Zstd


def zstd_functions(level: int) -> tuple[Callable[[], Any], Callable[[Any], bytes], Any]:
    """(new stream, flush it, end it): of the standard library since Python 3.14."""
    if sys.version_info >= (3, 14):
        zstd: Any = import_module("compression.zstd")
        return (
            lambda: zstd.ZstdCompressor(level=level),
            lambda stream: stream.flush(zstd.ZstdCompressor.FLUSH_BLOCK),
            lambda stream: stream.flush(zstd.ZstdCompressor.FLUSH_FRAME),
        )
    zstandard: Any = import_module("zstandard")
    return (
        zstandard.ZstdCompressor(level=level).compressobj,
        lambda stream: stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK),
        lambda stream: stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH),
    )


def maker_of(coding: str, level: int) -> Callable[[], Coder]:
    """What makes a coder for each body. ImportError: its package is not installed."""
    if coding == "br":
        return brotli_maker(level)
    if coding == "zstd":
        return zstd_maker(level)
    return lambda: Gzip(level)
