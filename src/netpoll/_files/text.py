"""Text files: decoding, newlines and positions over a BinaryFile.

Decoding and encoding are the codecs' incremental ones and io.IncrementalNewlineDecoder, so what
comes out is what the built-in open gives. So are the numbers of tell(): a byte offset where the
decoder has nothing in mind, else a larger number that also holds the decoder's state.
"""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Generator, Iterable
from typing import Any

from netpoll._files.binary import BinaryFile
from netpoll._files.ordered import OrderedFile

__all__ = ["TextFile"]

_LINE_ENDS = {
    None: re.compile("\n"),
    "\n": re.compile("\n"),
    "\r": re.compile("\r"),
    "\r\n": re.compile("\r\n"),
    "": re.compile("\r\n|\n|\r"),
}


class Answer(int):
    """A bool that can be awaited: aiofiles awaits `readable` of text files, not of binary ones."""

    def __await__(self) -> Generator[Any, None, bool]:
        return bool(self)
        yield  # makes it a generator

    def __repr__(self) -> str:
        return repr(bool(self))


class TextFile(OrderedFile[str]):
    """A file opened in text mode. Made by netpoll.open().

    The methods are those of io.TextIOWrapper, with `await` where they may wait. One loop's; not for
    several threads. Calls are carried out in the order in which they were made. Cancelling one that
    reads takes no text out of the file; for one that writes see BinaryFile.write.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_by_lines",
        "_chars",
        "_decoder",
        "_encoder",
        "_line_end",
        "_newline",
        "_since",
        "_taken",
        "buffer",
        "encoding",
        "errors",
    )

    def __init__(
        self, buffer: BinaryFile, encoding: str, errors: str, newline: str | None, by_lines: bool
    ) -> None:
        super().__init__(buffer._loop)
        self.buffer = buffer
        self.encoding = encoding
        self.errors = errors
        self._newline = newline
        self._by_lines = by_lines
        self._line_end = _LINE_ENDS[newline]
        self._chars = ""  # decoded; taken from it up to _at
        self._at = 0
        # For tell(): the decoder's flags before, and the bytes of, what _taken characters have been
        # taken from; None where nothing has been decoded since the position was set.
        self._since: tuple[int, bytes] | None = None
        self._taken = 0
        self._encoder: Any = None
        self._decoder: Any = None
        if buffer._readable:
            self._decoder = codecs.getincrementaldecoder(encoding)(errors)
            if newline in (None, ""):
                self._decoder = io.IncrementalNewlineDecoder(self._decoder, newline is None)

    # -- reading --------------------------------------------------------------------------------

    def _check_readable(self) -> None:
        self.buffer._check_readable()

    def _take(self, size: int) -> str:
        """`size` characters, which are there."""
        text = self._chars[self._at : self._at + size]
        self._at += len(text)
        self._taken += len(text)
        return text

    async def _fetch(self) -> bool:
        """Decodes one more piece of the file. False at its end. In a turn."""
        data = await self.buffer.read1()
        kept, flags = self._decoder.getstate()
        text = self._decoder.decode(data, final=not data)
        if self._at == len(self._chars) or self._since is None:
            self._since = (flags, kept + data)
            self._taken = 0
        else:  # a line goes on: what has not been taken yet came from the bytes before
            self._since = (self._since[0], self._since[1] + data)
        self._chars = self._chars[self._at :] + text
        self._at = 0
        return bool(data)

    async def read(self, size: int | None = -1) -> str:
        """`size` characters, fewer only at the end of the file; without a size all that is left."""
        self._check_readable()
        if size is not None and not self._is_busy and 0 <= size <= len(self._chars) - self._at:
            return self._take(size)
        await self._take_turn()
        try:
            self._check_readable()
            if size is None or size < 0:
                return await self._read_all()
            while len(self._chars) - self._at < size and await self._fetch():
                pass
            return self._take(size)
        finally:
            self._pass_turn()

    async def _read_all(self) -> str:
        data = await self.buffer.readall()
        text: str = self._chars[self._at :] + self._decoder.decode(data, final=True)
        self._forget()
        return text

    def _forget(self) -> None:
        self._chars = ""
        self._at = self._taken = 0
        self._since = None

    async def readline(self, size: int | None = -1) -> str:
        """Up to and with the end of the line, or `size` characters; "" at the end of the file."""
        self._check_readable()
        limit = -1 if size is None else size
        if not self._is_busy and limit < 0 and self._newline is None:
            end = self._chars.find("\n", self._at) + 1
            if end:
                return self._take(end - self._at)
        await self._take_turn()
        try:
            self._check_readable()
            return await self._read_line(limit)
        finally:
            self._pass_turn()

    async def _read_line(self, limit: int) -> str:
        seen = 0  # characters from _at on without an end of line
        while True:
            found = self._line_end.search(self._chars, self._at + seen)
            size = (found.end() if found else len(self._chars)) - self._at
            if limit >= 0 and size >= limit:
                return self._take(limit)
            if found:
                return self._take(size)
            # The first half of a "\r\n" may be there already.
            seen = max(0, size - 1)
            if not await self._fetch():
                line = self._take(len(self._chars) - self._at)
                self._forget()
                return line

    # -- writing --------------------------------------------------------------------------------

    async def write(self, text: str) -> int:
        """Takes all of text; returns its length in characters. See BinaryFile.write."""
        self.buffer._check_writable()
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._is_busy:
            await self._take_turn()
            try:
                self.buffer._check_writable()
                return await self._write(text)
            finally:
                self._pass_turn()
        return await self._write(text)

    async def _write(self, text: str) -> int:
        encoder = self._encoder or self._make_encoder()
        ends_line = self._by_lines and ("\n" in text or "\r" in text)
        size = len(text)
        if self._newline in ("\r", "\r\n"):
            text = text.replace("\n", self._newline)
        if self._since is not None or self._chars:  # read ahead: back to where the caller is
            await self.buffer.seek(_position(self._tell()))
            self._forget()
            self._decoder.reset()
        await self.buffer.write(encoder.encode(text))
        if ends_line:
            await self.buffer.flush()
        return size

    def _make_encoder(self) -> Any:
        self._encoder = codecs.getincrementalencoder(self.encoding)(self.errors)
        if self.buffer._seekable and self.buffer._tell() != 0:
            self._encoder.setstate(0)  # no byte order mark in the middle of a file
        return self._encoder

    async def writelines(self, lines: Iterable[str]) -> None:
        """Writes each of them; no newlines are added."""
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Hands everything that was written to the system. Not yet on the disk: see sync()."""
        await self.buffer.flush()

    async def sync(self, *, data_only: bool = False) -> None:
        """flush(), then waits until everything is on the disk: fsync(2), or fdatasync(2)."""
        await self.buffer.sync(data_only=data_only)

    # -- position and size ----------------------------------------------------------------------

    async def tell(self) -> int:
        """Where the file is at: a number for seek(). A byte offset, unless the encoding has state.

        Built-in text files take the same numbers.
        """
        self.buffer._check_open()
        self.buffer._check_seekable()
        await self._take_turn()
        try:
            await self.buffer.flush()
            return self._tell()
        finally:
            self._pass_turn()

    def _tell(self) -> int:
        position = self.buffer._tell()
        if self._since is None:
            return position
        flags, data = self._since
        start = position - len(data)
        kept_state = self._decoder.getstate()
        try:
            return self._cookie(start, flags, data)
        finally:
            self._decoder.setstate(kept_state)

    def _cookie(self, start: int, flags: int, data: bytes) -> int:
        """The number for the place `_taken` characters into what `data` decodes to."""

        def decoded(count: int) -> int:
            self._decoder.setstate((b"", flags))
            return len(self._decoder.decode(data[:count]))

        def is_clean(count: int) -> bool:
            return decoded(count) <= self._taken and not self._decoder.getstate()[0]

        # The fewest bytes that give as many characters.
        low, high = 0, len(data)
        while low < high:
            middle = (low + high) // 2
            if decoded(middle) < self._taken:
                low = middle + 1
            else:
                high = middle
        needs_end = decoded(low) < self._taken  # the last ones came with the end of the file
        fed = low
        while not is_clean(fed):  # in the middle of a character: a few bytes back is its start
            fed -= 1
        skipped = self._taken - decoded(fed)
        flags = self._decoder.getstate()[1]
        if not skipped:
            return _pack(start + fed, flags, 0, 0, False)
        return _pack(start + fed, flags, low - fed, skipped, needs_end)

    async def seek(self, cookie: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place that tell() has given, to the start (0) or, with whence 2, to the end.

        Other byte offsets may lie in the middle of a character. Returns the new place.
        """
        self.buffer._check_open()
        self.buffer._check_seekable()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if whence != os.SEEK_SET and cookie != 0:
            kind = "cur" if whence == os.SEEK_CUR else "end"
            raise io.UnsupportedOperation(f"can't do nonzero {kind}-relative seeks")
        if whence == os.SEEK_SET and cookie < 0:
            raise ValueError(f"negative seek position {cookie!r}")
        await self._take_turn()
        try:
            self.buffer._check_open()
            await self.buffer.flush()
            if whence == os.SEEK_CUR:
                cookie = self._tell()
            elif whence == os.SEEK_END:
                cookie = await self.buffer.seek(0, os.SEEK_END)
            await self._go_to(cookie, at_end=whence == os.SEEK_END)
        finally:
            self._pass_turn()
        return cookie

    async def _go_to(self, cookie: int, at_end: bool) -> None:
        position, flags, to_feed, to_skip, needs_end = _unpack(cookie)
        data = b""
        await self.buffer.seek(position)
        if to_skip:
            data = await self.buffer.read(to_feed)
        self._forget()
        if self._decoder is not None:
            if cookie == 0 or at_end:
                self._decoder.reset()
            else:
                self._decoder.setstate((b"", flags))
                self._since = (flags, b"")
            if to_skip:
                self._since = (flags, data)
                self._chars = self._decoder.decode(data, final=needs_end)
                if len(self._chars) < to_skip:
                    raise OSError("can't restore logical file position")
                self._at = self._taken = to_skip
        if self._encoder is not None:
            if cookie == 0:
                self._encoder.reset()
            else:
                self._encoder.setstate(0)

    async def truncate(self, size: int | None = None) -> int:
        """Cuts or extends the file to `size` bytes, by default to where it is at. Returns it."""
        self.buffer._check_writable()
        await self._take_turn()
        try:
            if size is None:
                await self.buffer.flush()
                size = _position(self._tell())
            return await self.buffer.truncate(size)
        finally:
            self._pass_turn()

    # -- the file -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Writes out what is buffered and closes. See BinaryFile.close."""
        await self.buffer.close()

    async def __aenter__(self) -> TextFile:
        self.buffer._check_open()
        return self

    def __repr__(self) -> str:
        return (
            f"<netpoll.TextFile name={self.name!r} mode={self.mode!r} encoding={self.encoding!r}>"
        )

    @property
    def name(self) -> Any:
        return self.buffer.name

    @property
    def mode(self) -> str:
        return self.buffer.mode

    @property
    def closed(self) -> bool:
        return self.buffer.closed

    @property
    def line_buffering(self) -> bool:
        return self._by_lines

    @property
    def newlines(self) -> Any:
        """The kinds of line end seen so far; None before the first one."""
        return getattr(self._decoder, "newlines", None)

    def fileno(self) -> int:
        """The file descriptor. Raises ValueError on a closed file."""
        return self.buffer.fileno()

    def readable(self) -> Answer:
        """True or False, at once and when awaited."""
        return Answer(self.buffer.readable())

    async def writable(self) -> bool:
        return await self.buffer.writable()

    async def seekable(self) -> bool:
        return await self.buffer.seekable()

    async def isatty(self) -> bool:
        return await self.buffer.isatty()


# The layout of io.TextIOWrapper's positions: one number of 64 bits, three of 32, and one bit.


def _pack(position: int, flags: int, to_feed: int, to_skip: int, needs_end: bool) -> int:
    return position | flags << 64 | to_feed << 96 | to_skip << 128 | needs_end << 160


def _unpack(cookie: int) -> tuple[int, int, int, int, bool]:
    flags, to_feed, to_skip = (cookie >> shift & 0xFFFFFFFF for shift in (64, 96, 128))
    return _position(cookie), flags, to_feed, to_skip, bool(cookie >> 160)


def _position(cookie: int) -> int:
    return cookie & 0xFFFFFFFFFFFFFFFF
