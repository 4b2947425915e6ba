"""The names of public methods tell what they give: the table of docs/reference/index.md."""

import ast
import asyncio
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "netpoll"
# What others have named: who knows asyncio, sockets, WebSocket libraries or aiofiles knows these.
FOREIGN = {
    "EventLoop": set(dir(asyncio.AbstractEventLoop)),
    "Connection": {"shutdown"},
    "WebSocket": {"send", "close"},
}
FILES = {"OrderedFile", "BinaryFile", "TextFile"}
ENDS = {
    "stop",
    "shutdown",
    "end",
    "finish",
    "terminate",
    "destroy",
    "dispose",
    "quit",
    "cancel_all",
}
# Nothing but these is awaited; the first word counts.
AWAITED = {"read", "readexactly", "fill", "drain", "wait", "aclose", "astart"}
COPIES = {"take", "tobytes"}


@dataclass(frozen=True)
class Method:
    owner: str
    name: str
    gives: str
    is_property: bool

    @property
    def words(self) -> list[str]:
        return self.name.split("_")

    @property
    def is_awaited(self) -> bool:
        return self.gives.startswith(("Awaitable", "Coroutine"))

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}() -> {self.gives}"


def public_classes() -> set[type]:
    names = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    modules = [importlib.import_module(f"netpoll.{name}") for name in names]
    modules.append(importlib.import_module("netpoll"))
    found = (getattr(module, name) for module in modules for name in getattr(module, "__all__", ()))
    return {one for one in found if inspect.isclass(one) and one.__module__.startswith("netpoll")}


def home_of(cls: type) -> ast.Module:
    """The file that the class is written in: the stub, if it is native."""
    module = cls.__module__
    if module == "netpoll":  # some say that they are at home where programs import them from
        for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
            if isinstance(node, ast.ImportFrom) and cls.__name__ in [a.name for a in node.names]:
                module = str(node.module)
    path = PACKAGE.parent / module.replace(".", "/")
    sources = [one for one in map(path.with_suffix, (".pyi", ".py")) if one.exists()]
    return ast.parse(sources[0].read_text() if sources else "")  # native, and nothing is public


def methods_of(cls: type) -> Iterator[Method]:
    """Those that are written in the class."""
    for node in [
        node
        for one in home_of(cls).body
        if isinstance(one, ast.ClassDef) and one.name == cls.__name__
        for node in one.body
    ]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            gives = ast.unparse(node.returns) if node.returns else ""
            if isinstance(node, ast.AsyncFunctionDef):
                gives = f"Awaitable[{gives}]"
            yield Method(cls.__name__, node.name, gives, bool(node.decorator_list))


def public_methods() -> list[Method]:
    """Of public classes, and of the classes of netpoll that these are made of."""
    classes = {base for one in public_classes() for base in one.__mro__}
    own = [cls for cls in classes if cls.__module__.startswith("netpoll")]
    return [
        method
        for cls in own
        for method in methods_of(cls)
        if method.name not in FOREIGN.get(cls.__name__, ())
    ]


METHODS = public_methods()


def test_the_methods_are_found() -> None:
    found = {f"{method.owner}.{method.name}" for method in METHODS}
    assert {"Connection.lease", "Server.aclose", "Scheduler.close", "Request.read"} <= found
    assert not {"EventLoop.run_forever", "Connection.shutdown"} & found


def test_what_ends_is_closed() -> None:
    assert [str(method) for method in METHODS if method.name.lstrip("a") in ENDS] == []


def test_awaited_methods_are_named_so() -> None:
    wrong = [
        method
        for method in METHODS
        if method.owner not in FILES
        and method.is_awaited != (method.words[0] in AWAITED)
        # A ring of one's own waits in the kernel, as liburing's does.
        and method.name != "wait_cqe"
    ]
    assert [str(method) for method in wrong] == []


def test_leases_and_copies_are_named_so() -> None:
    wrong = [
        method
        for method in METHODS
        if method.owner != "Lease"
        and ("lease" in method.words) != bool(re.match(r"Lease\b", method.gives))
    ]
    assert [str(method) for method in wrong] == []
    wrong = [
        method
        for method in METHODS
        if not method.is_property
        and (method.words[0] in COPIES) != bool(re.match(r"bytes\b", method.gives))
    ]
    assert [str(method) for method in wrong] == []
