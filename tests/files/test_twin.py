"""netpoll.open against the built-in open: the same calls give the same results, step by step."""

import inspect
import io
import random
from pathlib import Path
from typing import Any

import pytest

import netpoll

pytestmark = pytest.mark.control

TEXT = "línea uno\nzwei\r\n三\rfour\n\n" + "x" * 300 + "\U0001f600 end\n"
ENCODINGS = ["utf-8", "utf-16", "utf-8-sig", "latin-1", "shift_jis", "utf-7"]


class Twins:
    """One file of each kind, with equal contents."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours, self.theirs = ours, theirs
        self.log: list[str] = []

    async def call(self, method: str, *args: Any) -> Any:
        self.log.append(f"{method}{args}")
        try:
            expected = getattr(self.theirs, method)(*args)
        except (ValueError, OSError) as error:
            with pytest.raises(type(error)):
                await getattr(self.ours, method)(*args)
            return None
        if isinstance(expected, memoryview):
            expected = bytes(expected)
        assert await getattr(self.ours, method)(*args) == expected, "; ".join(self.log)
        return expected

    async def fill(self, size: int) -> None:
        mine, other = bytearray(size), bytearray(size)
        self.log.append(f"readinto({size})")
        expected = self.theirs.readinto(other)
        assert await self.ours.readinto(mine) == expected, "; ".join(self.log)
        assert mine == other, "; ".join(self.log)


async def binary_step(twins: Twins, rand: random.Random, size: int) -> None:
    match rand.randrange(11):
        case 0:
            await twins.call("read", rand.choice([0, 1, 7, 100, size, size * 3]))
        case 1:
            await twins.call("readline")
        case 2:
            await twins.call("readline", rand.randrange(20))
        case 3:
            await twins.call("seek", rand.randrange(size * 2))
        case 4:
            await twins.call("seek", -rand.randrange(1, 20), rand.choice([1, 2]))
        case 5:
            await twins.fill(rand.randrange(50))
        case 6 | 7:
            await twins.call("write", bytes(rand.choices(b"abc\n\r", k=rand.randrange(60))))
            if "a" in twins.ours.mode:  # built-in files go on in what they had read ahead
                await twins.call("seek", 0, 2)
        case 8:
            await twins.call("truncate", rand.randrange(size * 2))
        case 9:
            await twins.call("flush")
        case 10:
            await twins.call("readlines", rand.choice([-1, 30]))
    await twins.call("tell")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["r+b", "w+b", "a+b"])
async def test_binary(tmp_path: Path, loop: Any, mode: str, seed: int) -> None:
    rand = random.Random(f"{mode}{seed}")
    contents = bytes(rand.choices(b"abcdefgh\n", k=500))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(contents)
    theirs.write_bytes(contents)
    buffering = rand.choice([-1, 16, 100])
    with open(theirs, mode, buffering) as other:
        async with netpoll.open(ours, mode, buffering) as mine:
            twins = Twins(mine, other)
            await twins.call("tell")
            for _ in range(60):
                await binary_step(twins, rand, len(contents))
    assert ours.read_bytes() == theirs.read_bytes()


async def same_place(twins: Twins, ours: int, theirs: int, other: Any) -> None:
    """Two numbers that tell() gave: with either a built-in file finds the same text."""
    other.seek(theirs)
    expected = other.read()
    other.seek(ours)
    assert other.read() == expected, "; ".join(twins.log)


async def text_step(
    twins: Twins, rand: random.Random, marks: list[tuple[int, int]], third: Any
) -> None:
    match rand.randrange(7):
        case 0:
            await twins.call("read", rand.choice([0, 1, 3, 17, 200]))
        case 1 | 2:
            await twins.call("readline")
        case 3:
            await twins.call("readline", rand.randrange(8))
        case 4:
            if marks:
                ours, theirs = rand.choice(marks)
                twins.log.append(f"seek({ours}) and ({theirs})")
                assert await twins.ours.seek(ours) == ours
                assert twins.theirs.seek(theirs) == theirs
        case 5:
            await twins.call("seek", 0, rand.choice([0, 0, 2]))
        case 6:
            await twins.ours.seek(0, 1)
    marks.append((await twins.ours.tell(), twins.theirs.tell()))
    await same_place(twins, *marks[-1], third)


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_text_read(tmp_path: Path, loop: Any, encoding: str, newline: str | None) -> None:
    rand = random.Random(f"{encoding}{newline}")
    path = tmp_path / "text"
    path.write_bytes((TEXT * 5).encode(encoding, "ignore"))
    arguments = (path, "r", 64, encoding, "replace", newline)
    with open(*arguments) as other, open(*arguments) as third:
        async with netpoll.open(*arguments) as mine:
            twins = Twins(mine, other)
            marks: list[tuple[int, int]] = []
            for _ in range(60):
                await text_step(twins, rand, marks, third)
            await twins.call("seek", 0)
            await twins.call("read")
            await twins.call("read")
            assert (mine.encoding, mine.errors) == (other.encoding, other.errors)


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_text_write(tmp_path: Path, loop: Any, encoding: str, newline: str | None) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for mode in ("w", "a", "r+"):
        with open(theirs, mode, 64, encoding, "ignore", newline) as other:
            async with netpoll.open(ours, mode, 64, encoding, "ignore", newline) as mine:
                twins = Twins(mine, other)
                for line in TEXT.splitlines(keepends=True):
                    await twins.call("write", line)
                await twins.call("tell")
                await twins.call("flush")
                await twins.call("writelines", ["a\n", "b"])
        assert ours.read_bytes() == theirs.read_bytes()


async def test_reading_and_writing_text_in_turn(tmp_path: Path, loop: Any) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path in (ours, theirs):
        path.write_text("one\ntwo\nthree\nfour\n")
    with open(theirs, "r+") as other:
        async with netpoll.open(ours, "r+") as mine:
            twins = Twins(mine, other)
            await twins.call("readline")
            await twins.call("seek", await twins.call("tell"))
            await twins.call("write", "TWO\n")
            await twins.call("seek", 0)
            await twins.call("readlines", 6)
            await twins.call("seek", 8)
            await twins.call("truncate")
            await twins.call("read")
    assert ours.read_bytes() == theirs.read_bytes() == b"one\nTWO\n"


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "rw"},
        {"mode": "q"},
        {"mode": "rbt"},
        {"mode": "rb", "encoding": "utf-8"},
        {"mode": "rb", "errors": "strict"},
        {"mode": "rb", "newline": "\n"},
        {"mode": "r", "buffering": 0},
        {"mode": "r", "newline": "x"},
        {"mode": "r", "encoding": "no such"},
        {"mode": "r", "closefd": False},
        {"mode": 7},
        {"file": 3.5},
        {"file": -1},
        {"file": "nul\0byte"},
        {"file": "missing"},
        {"file": "."},
        {"mode": "x"},
    ],
)
async def test_refused_as_open_refuses(
    tmp_path: Path, loop: Any, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    arguments = {"file": "there", **arguments}
    with pytest.raises((ValueError, TypeError, LookupError, OSError)) as theirs:
        open(**arguments)
    with pytest.raises(type(theirs.value)) as ours:
        await netpoll.open(**arguments)
    if isinstance(theirs.value, OSError):
        assert ours.value.errno == theirs.value.errno
        assert ours.value.filename == theirs.value.filename
    assert isinstance(theirs.value, io.UnsupportedOperation) == isinstance(
        ours.value, io.UnsupportedOperation
    )


# What nobody can use of an asynchronous file: the blocking one underneath.
BLOCKING = {"detach", "raw"}


@pytest.mark.parametrize("buffering", [-1, 0])
@pytest.mark.parametrize("mode", ["r", "w+", "rb", "wb", "rb+"])
async def test_the_interface_of_aiofiles(
    tmp_path: Path, loop: Any, mode: str, buffering: int
) -> None:
    """Every name it has, awaited where it awaits."""
    aiofiles = pytest.importorskip("aiofiles")
    if "b" not in mode and buffering == 0:
        pytest.skip("text is always buffered")
    path = tmp_path / "file"
    path.write_text("text")
    theirs = await aiofiles.open(path, mode, buffering=buffering)
    ours = await netpoll.open(path, mode, buffering=buffering)
    public = {name for name in dir(theirs) if not name.startswith("_")}
    names = public - BLOCKING | {"__aiter__", "__anext__"}
    assert names <= set(dir(ours))
    for name in names:
        if name == "readable" and "b" not in mode:
            assert await ours.readable() == bool(ours.readable()) == await theirs.readable()
        elif inspect.iscoroutinefunction(getattr(theirs, name)):
            assert inspect.iscoroutinefunction(getattr(ours, name)), name
    for name in {"closed", "name", "mode", "encoding", "errors", "newlines"} & names:
        assert getattr(ours, name) == getattr(theirs, name), name
    await ours.close()
    await theirs.close()
