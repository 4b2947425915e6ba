"""The site: it builds without a warning, its reference is complete, and it fetches nothing."""

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from netpoll._former import CONNECTION

ROOT = Path(__file__).resolve().parent.parent
# A module, and the page that has it.
PAGES = {
    "config": "loop",
    "errors": "errors",
    "files": "files",
    "http": "http",
    "loop": "loop",
    "offload": "offload",
    "probe": "probe",
    "sched": "sched",
    "server": "server",
    "stats": "stats",
    "telemetry": "telemetry",
    "testing": "testing",
    "tls": "tls",
    "uring": "uring",
}
# Of netpoll.uring: objects of another library.
FROM_CFFI = {"ffi", "lib"}
# The page shows those of the package by these names.
OF_THE_PACKAGE = ("Buffer", "BufferPool", "Connection", "Lease")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="needs the extra: pip install 'netpoll[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_public_module_has_a_page() -> None:
    """A new module: a page in docs/reference, its line in mkdocs.yml and in PAGES."""
    modules = {path.stem for path in (ROOT / "src" / "netpoll").glob("*.py")}
    assert modules - {"__init__", "__main__", "_former", "cli"} == PAGES.keys()


class Anchors(HTMLParser):
    """Which anchors a page has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name == "id" and value}


# What was called otherwise, and is on no page.
FORMER = {"Connection": CONNECTION}


def public_names(module_name: str) -> Iterator[str]:
    """`netpoll.server.Server`, and its public methods and properties, where netpoll wrote them."""
    module = importlib.import_module(module_name)
    for name in sorted(set(module.__all__) - FROM_CFFI):
        thing = getattr(module, name)
        yield f"{module_name}.{name}"
        if isinstance(thing, type) and thing.__module__.startswith("netpoll"):
            for member in vars(thing):
                if not member.startswith("_") and member not in FORMER.get(name, ()):
                    yield f"{module_name}.{name}.{member}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", sorted(PAGES))
def test_the_reference_has_every_public_name(site: Path, module: str) -> None:
    if module == "uring":
        pytest.importorskip("cffi", reason="netpoll.uring needs cffi")
    found = Anchors(site / "reference" / PAGES[module] / "index.html").found
    assert [name for name in public_names(f"netpoll.{module}") if name not in found] == []


def test_the_reference_has_what_handlers_get(site: Path) -> None:
    found = Anchors(site / "reference" / "server" / "index.html").found
    wanted = [
        name
        for name in public_names("netpoll")
        if name.split(".")[1] in OF_THE_PACKAGE and name.count(".") > 1
    ]
    assert len(wanted) > 40
    assert [name for name in wanted if name not in found] == []


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("server", "A Lease on the next n bytes"),  # of a native method
        ("loop", "the number of bytes written into buf."),  # of a native function, a method here
        ("loop", "numeric addresses at once, names in the executor."),
    ],
)
def test_docstrings_are_shown(site: Path, page: str, text: str) -> None:
    assert text in (site / "reference" / page / "index.html").read_text()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^\">]*")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert [match[0] for page in pages for match in fetched.finditer(page.read_text())] == []
    styles = list((site / "assets").rglob("*.css"))
    assert [style.name for style in styles if "url(http" in style.read_text()] == []


# ---- docstrings -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    pytest.importorskip("griffe", reason="needs the extra: pip install 'netpoll[docs]'")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "scripts" / "docstrings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("One sentence.", "One sentence."),
        ("size: in bytes.\nfd: a file.", "- `size`: in bytes.\n- `fd`: a file."),
        ("size, count: in bytes\n    or not.", "- `size`, `count`: in bytes\n    or not."),
        ("on_close(conn): called.", "- `on_close(conn)`: called."),
        ("Awaitable: bytes.", "Awaitable: bytes."),
        ("size: nothing,\nand that is all.", "size: nothing,\nand that is all."),
        ("See docs/turn.md.", "See [The turn](../../turn/)."),
    ],
)
def test_docstrings_become_markdown(docstrings: ModuleType, text: str, page: str) -> None:
    assert docstrings.for_a_page(text) == page
