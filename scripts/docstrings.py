"""The site's reference: what mkdocstrings reads of the docstrings, made fit for a page.

mkdocs.yml names this griffe extension. It does this:
    - a native module has its signatures in a stub and its docstrings in the extension module, so
      these are taken from there (netpoll has to be built);
    - a class that takes a function as its method (`sock_recv = sock.sock_recv`) shows the function;
    - "name: what it means" at the beginning of lines becomes a list;
    - a page of docs/ that is named becomes a link to it;
    - methods with names such as __len__ are left out: the text of their class says what they do.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

NAME = r"\*{0,2}[a-z_]\w*(?:\([\w, ]*\))?"
DOCS = Path(__file__).resolve().parent.parent / "docs"
FIELD = re.compile(rf"({NAME}(?:, {NAME})*)(?: \((\w+)\))?: (?=\S)")
PAGE = re.compile(r"\bdocs/([\w-]+)\.md\b")
# Of methods that every class inherits: they say nothing about the one that is looked at.
FROM_OBJECT = frozenset(
    inspect.getdoc(getattr(object, name)) for name in dir(object) if name.startswith("__")
)


class Docstrings(griffe.Extension):
    """Given to griffe by its name."""

    def on_package(self, *, pkg: griffe.Module, **_others: Any) -> None:
        for thing in objects_of(pkg):
            if thing.name.startswith("__"):
                thing.public = False
            if thing.docstring is None and thing.filepath.suffix == ".pyi":
                text = native_docstring(thing)
                if text:
                    thing.docstring = griffe.Docstring(text, parent=thing)
            if thing.docstring is not None:
                thing.docstring.value = for_a_page(thing.docstring.value)
        for thing in list(objects_of(pkg)):
            if isinstance(thing, griffe.Attribute) and isinstance(thing.parent, griffe.Class):
                take_function(thing)


def objects_of(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from objects_of(member)


def take_function(attribute: griffe.Attribute) -> None:
    """Replaces an attribute of a class whose value is a function that the module has."""
    if attribute.parent is None:
        return
    try:
        function = attribute.module[str(attribute.value)]
        function = function.final_target if function.is_alias else function
    except (KeyError, ValueError, griffe.GriffeError):  # another value, or not of this package
        return
    if isinstance(function, griffe.Function):
        method = copy.copy(function)
        method.name = attribute.name
        method.parameters = griffe.Parameters(*list(function.parameters)[1:])
        attribute.parent.set_member(attribute.name, method)


def native_docstring(thing: griffe.Object) -> str | None:
    """Of the thing that is imported under the same name."""
    found: Any = importlib.import_module(thing.module.path)
    for name in thing.path.removeprefix(thing.module.path).lstrip(".").split("."):
        found = getattr(found, name, None) if name else found
    if found is None or isinstance(found, (int, str, tuple)):
        return None  # a constant: its docstring would be its type's
    text = inspect.getdoc(found)
    return None if text in FROM_OBJECT else text


def for_a_page(text: str) -> str:
    """A docstring as Markdown."""
    blocks = re.split(r"\n\s*\n", text)
    return PAGE.sub(as_link, "\n\n".join(map(as_list, blocks)))


def as_link(page: re.Match[str]) -> str:
    """By the title of the page; reference pages are two folders below the site's root."""
    text = (DOCS / f"{page[1]}.md").read_text()
    title = text.removeprefix("# ").partition("\n")[0]
    return f"[{title}](../../{page[1]}/)"


def as_list(block: str) -> str:
    """As a list, if every line of the block begins a field or goes on with one."""
    lines = block.split("\n")
    if not FIELD.match(lines[0]):
        return block
    if not all(line.startswith("    ") or FIELD.match(line) for line in lines):
        return block
    return "\n".join(
        line if line.startswith("    ") else FIELD.sub(as_item, line, count=1) for line in lines
    )


def as_item(field: re.Match[str]) -> str:
    names = re.sub(NAME, r"`\g<0>`", field[1])
    return f"- {names}{f' ({field[2]})' if field[2] else ''}: "
