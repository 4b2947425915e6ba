"""Each figure of a page is that of a recorded run, or stands in a table with the reason.

`benchmarks/quotes.toml` has the words of the pages in which figures stand. What is left of a page
without them, without the constants and without the history below must not have a figure.
"""

import re
from pathlib import Path

import pytest

from benchmarks import quote
from benchmarks.quote import Quote, flat

ROOT = Path(__file__).resolve().parents[2]
QUOTES = quote.quotes()

# A time, a rate, a ratio, and a cell of a table that is nothing but a decimal.
FIGURE = re.compile(
    r"\d[\d.,]*\s?(?:µs|ns|ms)\b"
    r"|\d\s?(?:[kMG]i?B|requests|k)/s\b"
    r"|(?<!uvloop )(?<!uvicorn )(?<![\d.])[01]\.\d\d(?![\d.])"
    r"|\d\.\d+ times\b"
    r"|(?<=\| )\**\d+\.\d+\**(?= \|)"
)

# What was measured before a decision, of code that is not in the tree: nothing could be run again.
HISTORY = {
    "benchmarks/NEGATIVE.md": "what was tried and did not help",
    "docs/decisions/small-extensions.md": "sizes of builds, not times",
    "docs/decisions/own-buffers-for-bulk.md": "the alternatives of receiving much",
    "docs/decisions/provided-buffer-ring.md": "the alternatives of the receive ring",
    "docs/decisions/tls-engines.md": "the alternatives of the native engine",
    "docs/decisions/two-sends.md": "the alternatives of quiet sends",
    "docs/decisions/writes-at-the-end-of-the-turn.md": "the alternatives of collecting writes",
    "docs/decisions/handles-outside-the-collector.md": "handles that the collector looks at",
}

# Words that have a figure which no run gives, and what it is.
CONSTANTS = {
    "README.md": {
        "in the same mode is 1.00;": "what it is set against",
        "asyncio beside itself: 0.99 to 1.00": "the control, of which test_recorded.py knows",
    },
    "docs/benchmarks.md": {
        "0.1 ms for each": "how long a window is",
        "known to within 20 ms": "the kernel's clock of a child",
        "about 0.38 h, and the ratio of two such medians one of 0.53 h": "of any median",
    },
    "docs/gil.md": {
        "CPython 3.11, µs": "a version of Python",
        "Every 2 ms it looks": "the watcher's interval",
        "a blocked worker costs 2 to 4 ms, once": "one or two of the watcher's intervals",
    },
    "docs/glossary.md": {
        "looks every 2 ms": "the watcher's interval",
    },
    "docs/index.md": {
        "in the same mode is 1.00<": "what it is set against",
        "asyncio beside itself in the same run: 0.99 to 1.00": "the control, as in README.md",
    },
    "docs/server.md": {
        "fewer than 0.01 io_uring_enter per request": "the order of magnitude, of an experiment",
    },
    "docs/scheduler.md": {
        "200 µs of them": "TURN_TASKS_NS of limits.pxd",
    },
    "docs/turn.md": {
        "| 64, or 200 µs |": "TURN_TASKS_NS of limits.pxd",
        "looked at every 20 µs": "the interval of the signal pipe",
        "One in each turn costs 1.8 times the CPU where each datagram posts a callback, 2.6 times "
        "where each goes through an `asyncio.Queue`.": "of what netpoll does not do",
    },
}
# Programs and what they print, and the bars of index.md, which test_recorded.py compares.
FENCED = re.compile(r"^```.*?^```|^<tbody>.*?^</tbody>", re.MULTILINE | re.DOTALL)
TABLES_OF_OTHER_THINGS = {
    "docs/backends.md": "versions of Linux",
    "docs/security.md": "defaults of limits",
    "docs/compatibility.md": "versions of packages, numbers of tests",
}


def pages() -> list[str]:
    """Those with figures of speed, by path; a link to a page is not another one."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/**/*.md")]
    return [str(page.relative_to(ROOT)) for page in found if not page.is_symlink()]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.parametrize("quoted", QUOTES, ids=lambda q: f"{q.page}: {q.words[:40]}")
def test_a_page_has_the_figures_of_its_run(quoted: Quote) -> None:
    assert quoted.filled() in flat(text_of(quoted.page))


@pytest.mark.parametrize("page", pages())
def test_a_page_has_no_other_figure(page: str) -> None:
    if page in HISTORY or page in TABLES_OF_OTHER_THINGS:
        return
    text = flat(FENCED.sub("", text_of(page)))
    quoted = [each.filled() for each in QUOTES if each.page == page]
    for words in sorted(quoted, key=len, reverse=True):
        text = text.replace(words, "…")
    for words in CONSTANTS.get(page, {}):
        assert words in text, f"{page} does not have these words any more"
        text = text.replace(words, "…")
    left = [text[max(m.start() - 60, 0) : m.end() + 20] for m in FIGURE.finditer(text)]
    assert not left


def test_the_pages_of_the_tables_are_there() -> None:
    named = {*HISTORY, *CONSTANTS, *TABLES_OF_OTHER_THINGS, *(each.page for each in QUOTES)}
    assert named <= set(pages())


def test_each_file_is_quoted() -> None:
    files = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert {each.run for each in QUOTES} == files


# ---- the program ------------------------------------------------------------------------------


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"arm": "a", "ns": {"median": 1234.5}, "ns_by_round": [4.0, 8.0, 8.0]}
    other = {"arm": "b", "ns": {"median": 2.0}, "ns_by_round": [2.0, 2.0, 8.0]}
    runs = [{"rows": [first, other]}, {"rows": [first | {"arm": "b c"}]}]
    monkeypatch.setattr(quote, "runs_of", lambda name: runs)


@pytest.mark.usefixtures("rows")
def test_what_a_figure_is() -> None:
    assert quote.figure("x", "arm=a ns.median/1000") == "1.23"
    assert quote.figure("x", "arm=a ns.median .0f") == "1234"
    assert quote.figure("x", "arm=a ns.median") == "1234"
    assert quote.figure("x", "'arm=b c' ns.median/1000 .1f") == "1.2"
    assert quote.figure("x", "arm=a ns.median over arm=b ns.median .1f") == "617.2"
    assert quote.figure("x", "arm=a ns_by_round over arm=b ns_by_round") == "2"
    assert quote.figure("x", "run=1 ns.median/1000") == "1.23"
    with pytest.raises(ValueError, match=r"no row with .*'c'"):
        quote.figure("x", "arm=c ns.median")
    with pytest.raises(ValueError, match="are 2 rows"):
        quote.figure("x", "ns.median")


@pytest.mark.usefixtures("rows")
def test_figures_are_written_where_the_words_stand() -> None:
    quoted = Quote("p.md", "takes {} µs, {} of it", "x", ("arm=a ns.median .0f", "arm=b ns.median"))
    assert quoted.written("It\ntakes 7\nµs, 0.5 of it.") == "It\ntakes 1234\nµs, 2 of it."
    with pytest.raises(ValueError, match=r"p\.md has 0 times"):
        quoted.written("It takes µs")
    with pytest.raises(ValueError, match=r"p\.md has 2 times"):
        quoted.written("takes 7 µs, 0.5 of it " * 2)
