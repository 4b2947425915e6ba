"""Files of a directory over HTTP: what their names may be, and what is said of each of them.

request -> its path below the directory -> a variant of that file (itself, or a twin that is
encoded already) -> conditions, ranges -> the answer, out of memory or by sendfile(2)
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from netpoll._http.conditions import Header, Validators, date_of, ranges_of, status_of
from netpoll._http.media import media_type
from netpoll._http.negotiate import best_coding
from netpoll._native.http.raw import Request, Response
from netpoll._native.http.served_file import FileCache, FileParts, ServedFile

__all__ = ["StaticFiles"]

Pair = tuple[bytes, bytes]
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

# The endings of files that are the same, encoded.
ENDINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
# For so long it is not looked for other twins of a file. The file itself is looked at each time.
TWINS_KEPT_S = 1.0
# Files whose headers are kept; each is some KiB.
KNOWN_MAX_COUNT = 4096
# What a name may be for which there is no file. Other errors are the server's.
NOT_THERE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EXDEV,
    errno.EINVAL,
}
PIECE_BYTES = 256 * 1024
NS_PER_S = 1_000_000_000

TEXT: Pair = (b"content-type", b"text/plain; charset=utf-8")
METHODS_FIELD: Pair = (b"allow", b"GET, HEAD")
VARY_FIELD: Pair = (b"vary", b"accept-encoding")


class Variant(NamedTuple):
    """What is said of a file, or of a twin of it, until it changes."""

    validators: Validators
    kind: str  # the media type
    fields: list[Pair]


class Known:
    """What was found of one path: its codings, until when; its variants."""

    def __init__(self, codings: tuple[str, ...], until_s: float) -> None:
        self.codings = codings
        self.until_s = until_s
        self.variants: dict[str | None, Variant] = {}


class Kept(threading.local):
    """Each worker's thread has its own."""

    def __init__(self) -> None:
        self.files = FileCache()
        self.known: dict[str, Known] = {}


class StaticFiles:
    """Serves the files of a directory.

        files = http.StaticFiles("public", prefix="/static/")
        http.Server(files.answer)               # a plain function of a request
        app.mount("/static", files)             # an ASGI application, in a framework

    directory: it need not be there yet. prefix: what the paths of requests begin with; others are
        404. A mount in a framework has its own (ASGI's root_path).
    index: names that stand for a directory, the first that is there.
    precompressed: codings, best first, of files that lie beside the others as NAME.br, NAME.zst or
        NAME.gz: who accepts them gets these, unless they are older.
    cache_control: of each answer with a file. headers: more of these.
    types: media types by ending (".ext"), before those that are known.
    follow_symlinks: also to files outside the directory. dotfiles: also names that begin with a
        dot; .well-known is served anyway (RFC 8615).

    Answers GET and HEAD with 200, 206, 304, 404, 405, 412 and 416, and 301 for a directory without
    its slash.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        prefix: str = "/",
        index: Iterable[str] = ("index.html",),
        precompressed: Iterable[str] = ("br", "zstd", "gzip"),
        cache_control: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        types: Mapping[str, str] | None = None,
        follow_symlinks: bool = False,
        dotfiles: bool = False,
    ) -> None:
        if not prefix.startswith("/"):
            raise ValueError(f"prefix must begin with a slash, not {prefix!r}")
        self._directory = os.path.abspath(os.fspath(directory))
        self._below = None if follow_symlinks else self._directory
        self._prefix = prefix.rstrip("/")
        self._index = tuple(index)
        self._codings = tuple(precompressed)
        for coding in self._codings:
            if coding not in ENDINGS:
                raise ValueError(f"precompressed has {', '.join(ENDINGS)}, not {coding!r}")
        self._types = dict(types or {})
        self._dotfiles = dotfiles
        self._more: list[Pair] = []
        if cache_control is not None:
            self._more.append((b"cache-control", cache_control.encode("latin-1")))
        for name, value in headers:
            self._more.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        self._kept = Kept()

    def __repr__(self) -> str:
        return f"<netpoll.http.StaticFiles {self._directory!r}>"

    # ---- as a function, as an application -----------------------------------------------------

    def answer(self, request: Request) -> Response:
        """A handler of plain requests; call it from one for some of the paths, too."""
        target = request.target
        return self._answer(request.method, request.path, target, request.header, self._prefix)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            raise RuntimeError(f"files are not served by {scope['type']}")
        query = scope["query_string"].decode("latin-1")
        target = (scope.get("raw_path") or b"").decode("latin-1") + ("?" + query if query else "")
        fields = scope["headers"]

        def header(name: str) -> str | None:
            wanted = name.encode()
            return next((value.decode("latin-1") for one, value in fields if one == wanted), None)

        prefix = scope.get("root_path", "").rstrip("/") + self._prefix
        response = self._answer(scope["method"], scope["path"], target, header, prefix)
        await send_response(scope, send, response)

    # ---- the request --------------------------------------------------------------------------

    def _answer(self, method: str, path: str, target: str, header: Header, prefix: str) -> Response:
        if method not in ("GET", "HEAD"):
            return Response(b"Method Not Allowed", 405, [TEXT, METHODS_FIELD])
        if not path.startswith(prefix + "/"):
            return not_found()
        name = path[len(prefix) + 1 :]
        try:
            if not name or name.endswith("/"):
                return self._answer_directory(name, target, method, header)
            if not self._is_public(name) or "%2f" in target.partition("?")[0].lower():
                return not_found()
            return self._answer_file(name, method, header)
        except IsADirectoryError:
            return self._redirect(name, target)
        except UnicodeEncodeError:
            return not_found()
        except OSError as error:
            if error.errno in NOT_THERE:
                return not_found()
            raise

    def _is_public(self, name: str) -> bool:
        """It names a file below the directory, and only one way leads to each."""
        segments = name.split("/")
        for i, segment in enumerate(segments):
            if segment in ("", ".", "..") or "\0" in segment:
                return False
            if segment.startswith(".") and not self._dotfiles and (i or segment != ".well-known"):
                return False
        return True

    def _answer_directory(self, name: str, target: str, method: str, header: Header) -> Response:
        if (name and not self._is_public(name[:-1])) or "%2f" in target.partition("?")[0].lower():
            return not_found()
        for index in self._index:
            try:
                return self._answer_file(name + index, method, header)
            except (FileNotFoundError, IsADirectoryError):
                continue
        return not_found()

    def _redirect(self, name: str, target: str) -> Response:
        """A directory: links on its page would lead astray without the slash. The last part alone
        cannot lead to another host."""
        if not any(os.path.isfile(os.path.join(self._directory, name, one)) for one in self._index):
            return not_found()
        query = target.partition("?")[2]
        where = f"./{quote(name.rpartition('/')[2])}/" + ("?" + query if query else "")
        return Response(b"", 301, [(b"location", where.encode("latin-1"))])

    # ---- the file -----------------------------------------------------------------------------

    def _answer_file(self, name: str, method: str, header: Header) -> Response:
        file, variant = self._find(name, header)
        status = status_of(header, variant.validators)
        if status == 304:
            return Response(b"", 304, [pair for pair in variant.fields if pair[0] in KEPT_BY_304])
        if status == 412:
            return Response(b"Precondition Failed", 412, [TEXT])
        if method == "GET" and header("range") is not None:
            ranges = ranges_of(header, file.size, variant.validators)
            if ranges is not None:
                return answer_ranges(file, variant, ranges)
        return Response(file if file.data is None else file.data, 200, variant.fields)

    def _find(self, name: str, header: Header) -> tuple[ServedFile, Variant]:
        """The file as it is now, in the coding that the client likes best."""
        kept = self._kept
        known = kept.known.get(name)
        now_s = time.monotonic()
        if known is None or now_s >= known.until_s:
            known = self._look(name, known, now_s)
        coding = None
        if known.codings:
            coding = best_coding(header("accept-encoding"), known.codings)
        path = f"{self._directory}/{name}"
        if coding is not None:
            path += ENDINGS[coding]
        file = kept.files.find(path, self._below)
        variant = known.variants.get(coding)
        if variant is None or variant.validators.etag != file.etag:
            variant = known.variants[coding] = self._describe(name, file, coding, known)
        return file, variant

    def _look(self, name: str, before: Known | None, now_s: float) -> Known:
        """Which twins are there. OSError: the file itself is not."""
        path = os.path.join(self._directory, name)
        changed_s = os.stat(path).st_mtime
        codings = tuple(
            coding for coding in self._codings if is_twin(path + ENDINGS[coding], changed_s)
        )
        known = before
        if known is None or known.codings != codings:
            known = Known(codings, 0.0)
        known.until_s = now_s + TWINS_KEPT_S
        table = self._kept.known
        if name not in table and len(table) >= KNOWN_MAX_COUNT:
            del table[next(iter(table))]
        table[name] = known
        return known

    def _describe(self, name: str, file: ServedFile, coding: str | None, known: Known) -> Variant:
        validators = Validators(file.etag, file.changed_ns // NS_PER_S)
        kind = media_type(name.rpartition("/")[2], self._types)
        fields: list[Pair] = [
            (b"content-type", kind.encode("latin-1")),
            (b"etag", validators.etag.encode()),
            (b"last-modified", date_of(validators.changed_s).encode()),
            (b"accept-ranges", b"bytes"),
            *self._more,
        ]
        if coding is not None:
            fields.append((b"content-encoding", coding.encode()))
        if known.codings:
            fields.append(VARY_FIELD)
        return Variant(validators, kind, fields)


# RFC 9110 15.4.5; Date is the server's.
KEPT_BY_304 = {b"cache-control", b"content-location", b"etag", b"expires", b"vary"}


def not_found() -> Response:
    return Response(b"Not Found", 404, [TEXT])


def is_twin(path: str, changed_s: float) -> bool:
    try:
        return os.stat(path).st_mtime >= changed_s
    except OSError:
        return False


def answer_ranges(file: ServedFile, variant: Variant, ranges: list[tuple[int, int]]) -> Response:
    """206 with one part or several; 416 without any."""
    size = file.size
    if not ranges:
        return Response(
            b"Range Not Satisfiable", 416, [TEXT, (b"content-range", f"bytes */{size}".encode())]
        )
    said = [f"bytes {offset}-{offset + length - 1}/{size}" for offset, length in ranges]
    if len(ranges) == 1:
        fields = [*variant.fields, (b"content-range", said[0].encode())]
        return Response(FileParts(file, [ranges[0]]), 206, fields)
    boundary = secrets.token_hex(16)
    pieces: list[bytes | tuple[int, int]] = []
    for one, part in zip(said, ranges, strict=True):
        head = f"--{boundary}\r\ncontent-type: {variant.kind}\r\ncontent-range: {one}\r\n\r\n"
        pieces += [head.encode("latin-1"), part, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    kind = (b"content-type", f"multipart/byteranges; boundary={boundary}".encode())
    return Response(FileParts(file, pieces), 206, [kind, *variant.fields[1:]])


# ---- ASGI ---------------------------------------------------------------------------------------


async def send_response(scope: Message, send: Send, response: Response) -> None:
    """What answer() returned, as messages of ASGI; on other servers, too."""
    body = response.body
    size = len(body) if isinstance(body, bytes) else body.size
    fields = response.headers
    if response.status != 304:
        fields.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": fields})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body"})
        return
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    parts = FileParts(body, [(0, size)]) if isinstance(body, ServedFile) else body
    by_kernel = "http.response.zerocopysend" in (scope.get("extensions") or {})
    for piece in parts.pieces:
        if isinstance(piece, bytes):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif by_kernel and parts.file.data is None:
            offset, count = piece
            message = {"type": "http.response.zerocopysend", "file": parts.file.fileno()}
            await send(message | {"offset": offset, "count": count, "more_body": True})
        else:
            await send_piece(send, parts.file, *piece)
    await send({"type": "http.response.body"})


async def send_piece(send: Send, file: ServedFile, offset: int, size: int) -> None:
    end = offset + size
    while offset < end:
        length = min(PIECE_BYTES, end - offset)
        if file.data is not None:
            data = file.data[offset : offset + length]
        else:
            data = await asyncio.to_thread(os.pread, file.fileno(), length, offset)
        if not data:
            raise EOFError("a file became shorter while it was being sent")
        await send({"type": "http.response.body", "body": data, "more_body": True})
        offset += len(data)
