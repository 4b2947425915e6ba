"""Figures of the pages beside the recorded runs: python benchmarks/quote.py [--write]

`quotes.toml` has, page by page, the words that hold figures, with {} in the place of each, and
where in benchmarks/results each one is. Says which words a page does not have as its run would
have them; with --write it puts the run's figures into the page, and all runs into the table of
docs/results.md. A figure is written

    [KEY=VALUE ...] PATH[/DIVISOR] [over [KEY=VALUE ...] PATH] [FORMAT]

KEY=VALUE choose the row, in the first run of the file that has one like that (`run=1`: in the
second run alone), PATH leads into it. `over` divides by the same of another row, by rounds where
both have them: then it is the median of the rounds' ratios. FORMAT is Python's, three significant
digits unless given.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "benchmarks" / "quotes.toml"
PAGE = ROOT / "docs" / "results.md"
FORMAT = ".3g"
FIGURE = r"[\d.]+"

Row = dict[str, Any]


@cache
def runs_of(name: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["runs"]
    return runs


def row_of(name: str, wanted: dict[str, str]) -> Row:
    """The one row of the first run that has such a row. Raises ValueError."""
    number = wanted.pop("run", None)
    runs = runs_of(name)
    for run in runs if number is None else [runs[int(number)]]:
        found = [r for r in run["rows"] if all(str(r.get(k)) == v for k, v in wanted.items())]
        if len(found) > 1:
            raise ValueError(f"{name}: {wanted} are {len(found)} rows")
        if found:
            return dict(found[0])
    raise ValueError(f"{name}: no row with {wanted}")


def value_of(name: str, words: Sequence[str]) -> Any:
    """What [KEY=VALUE ...] PATH[/DIVISOR] leads to. Raises ValueError unless to one thing."""
    *chosen, path = words
    path, _, divisor = path.partition("/")
    value: Any = row_of(name, dict(word.split("=", 1) for word in chosen))
    for key in path.split("."):
        value = value[key]
    return value / float(divisor) if divisor else value


def number_of(name: str, words: Sequence[str]) -> float:
    if "over" not in words:
        return float(value_of(name, words))
    middle = words.index("over")
    above, below = value_of(name, words[:middle]), value_of(name, words[middle + 1 :])
    if isinstance(above, list):
        return median(a / b for a, b in zip(above, below, strict=True))
    return float(above / below)


def figure(name: str, text: str) -> str:
    words = shlex.split(text)
    form = words.pop() if re.fullmatch(r"\.\d[fg]", words[-1]) else FORMAT
    number = number_of(name, words)
    is_whole = form.endswith("g") and number >= 10 ** int(form[1])
    return format(number, ".0f" if is_whole else form)  # never 1e+02


@dataclass(frozen=True)
class Quote:
    """run: the file of benchmarks/results, without its suffix."""

    page: str
    words: str
    run: str
    figures: tuple[str, ...]

    def filled(self) -> str:
        """The words as the page has to have them."""
        return self.words.format(*(figure(self.run, each) for each in self.figures))

    def pattern(self) -> re.Pattern[str]:
        """The words with any figures, broken into lines anywhere."""
        parts = [re.escape(part) for part in self.words.split("{}")]
        escaped = f"({FIGURE})".join(parts)
        return re.compile(re.sub(r"(?:\\ )+", r"\\s+", escaped))

    def written(self, text: str) -> str:
        """A page's text with the run's figures. Raises ValueError unless the words stand once."""
        found = list(self.pattern().finditer(text))
        if len(found) != 1:
            raise ValueError(f"{self.page} has {len(found)} times: {self.words}")
        (match,) = found
        for group in range(len(self.figures), 0, -1):
            new = figure(self.run, self.figures[group - 1])
            text = text[: match.start(group)] + new + text[match.end(group) :]
        return text


def quotes() -> list[Quote]:
    table = tomllib.loads(TABLE.read_text())
    return [
        Quote(page["page"], flat(quote["words"]), page["run"], tuple(quote["figures"]))
        for page in table["page"]
        for quote in page["quote"]
    ]


def flat(text: str) -> str:
    """Without the breaks of its lines."""
    return " ".join(text.split())


def table() -> list[str]:
    """The lines of docs/results.md: each run, and which pages have figures of its file."""
    lines = ["| file | taken | command | quoted in |", "|---|---|---|---|"]
    pages = {(each.run, each.page): None for each in quotes()}  # in order
    for path in sorted(RESULTS.glob("*.json")):
        told = ", ".join(f"`{page}`" for run, page in pages if run == path.stem)
        for run in runs_of(path.stem):
            command = f"`{run['command']}`"
            lines.append(f"| `{path.name}` | {run['started'][:10]} | {command} | {told} |")
    return lines


def with_table(text: str) -> str:
    """The page of results with the table as it has to be."""
    lines = text.splitlines()
    begin = lines.index(table()[0])
    end = next(n for n in range(begin, len(lines)) if not lines[n].startswith("|"))
    return "\n".join([*lines[:begin], *table(), *lines[end:]]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into the pages")
    options = parser.parse_args(argv)
    others = 0
    for quote in quotes():
        path = ROOT / quote.page
        text = path.read_text()
        if quote.filled() in flat(text):
            continue
        others += 1
        print(f"{quote.page}: {quote.filled()}")
        if options.write:
            path.write_text(quote.written(text))
    text = PAGE.read_text()
    if (wanted := with_table(text)) != text:
        others += 1
        print(f"{PAGE.relative_to(ROOT)}: the table of runs")
        if options.write:
            PAGE.write_text(wanted)
    return int(bool(others) and not options.write)


if __name__ == "__main__":
    sys.exit(main())
