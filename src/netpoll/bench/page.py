"""The page: one HTML file with tables, charts and the method; it needs no network.

The tables are plain HTML and are there without JavaScript. The charts are drawn by plotly.js, which
is embedded compressed (a third of its size) and unpacked by the browser. What stands on the page is
the kind's (`Kind.section`); how a table or a chart looks is written here and in page.html.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from netpoll.bench.blocks import (
    Bars,
    Block,
    Choice,
    Curves,
    Figure,
    Group,
    Heading,
    Line,
    Lines,
    Multiples,
    Note,
    Ratios,
    Table,
)
from netpoll.bench.document import problems
from netpoll.bench.environment import sentences
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.registry import kind_of

__all__ = ["page"]


def _tag(name: str, content: str, **attributes: str) -> str:
    """An element. `class_` is its class, `data_key` its data-key; empty ones are left out."""
    inside = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value
    )
    return f"<{name}{inside}>{content}</{name}>"


# ---- tables -----------------------------------------------------------------------------------


def _shade(versus: float) -> str:
    """A background from green (half the control's cost) over none to red (twice)."""
    strength = min(abs(1 - versus) * 0.8 if versus < 1 else (versus - 1) * 0.4, 0.4)
    fill = "--good-fill" if versus < 1 else "--bad-fill"
    return f"background: rgba(var({fill}), {strength:.2f})"


def _bar(share: float) -> str:
    gradient = "linear-gradient(var(--bar), var(--bar))"
    return f"background-image: {gradient}; background-size: {100 * share:.0f}% 70%"


CLASSES = {"good": "good", "bad": "bad", "key": "key", "best": "", "": ""}


def _figure(figure: Figure) -> str:
    sub = f' <span class="sub">{escape(figure.sub)}</span>' if figure.sub else ""
    kind, style = CLASSES[figure.tone], ""
    if figure.share is not None:
        kind, style = f"bar {kind}", _bar(figure.share)
    elif figure.shade is not None:
        style = _shade(figure.shade)
    return _tag("td", escape(figure.text) + sub, class_=kind, style=style)


def _line(line: Line, width: int) -> str:
    mark = ' <span title="disturbed">!</span>' if line.disturbed else ""
    head = _tag("th", escape(line.head) + mark, scope="row", class_="own" if line.own else "")
    if line.figures:
        cells = "".join(map(_figure, line.figures))
    else:
        why = escape(line.failure or "not measured")
        cells = _tag("td", why, class_="failed", colspan=str(width))
    return f"<tr>{head}{cells}</tr>"


def _group(group: Group, width: int) -> str:
    title = _tag("th", escape(group.title), class_="group", scope="rowgroup")
    head = f"<tr>{title}{'<td></td>' * width}</tr>" if group.title else ""
    return head + "".join(_line(line, width) for line in group.lines)


def _table(table: Table) -> str:
    title = _tag("b", escape(table.title)) if table.title else ""
    words = " ".join(filter(None, (title, escape(table.caption))))
    caption = _tag("p", words, class_="caption") if words else ""
    cells = "".join(_tag("th", escape(name), scope="col") for name in table.head)
    body = "".join(_group(group, len(table.head) - 1) for group in table.groups)
    return _tag(
        "div",
        f'{caption}<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        class_="card",
    )


# ---- the other blocks -------------------------------------------------------------------------


def _heading(heading: Heading) -> str:
    return _tag("h2", escape(heading.text))


def _note(note: Note) -> str:
    return _tag("p", escape(note.text), class_="small soft")


def _choice(choice: Choice) -> str:
    buttons = "".join(
        _tag("button", escape(choice.titles.get(value, value)), type="button", data_value=value)
        for value in choice.values
    )
    return _tag("div", buttons, class_="choices", data_key=choice.key)


def _chart(chart: Bars | Curves | Lines | Ratios) -> str:
    note = f" {escape(chart.note)}" if chart.note else ""
    caption = _tag("figcaption", _tag("b", escape(chart.title)) + note)
    kind = "multiples" if isinstance(chart, Multiples) else ""
    place = _tag("div", "", id=chart.identity, class_=kind)
    return _tag("figure", caption + place, class_="card")


DRAWN: dict[type, Callable[[Any], str]] = {
    Heading: _heading,
    Note: _note,
    Table: _table,
    Choice: _choice,
    Bars: _chart,
    Curves: _chart,
    Lines: _chart,
    Multiples: _chart,
    Ratios: _chart,
}


def _data(blocks: Sequence[Block]) -> Facts:
    """What the charts are drawn from, for page.html."""
    charts: list[Row] = []
    for block in blocks:
        if isinstance(block, Bars):
            charts.append(
                {
                    "type": "bars",
                    "id": block.identity,
                    "unit": block.unit,
                    "parts": block.parts,
                    "more_is_better": block.more_is_better,
                    "rows": [
                        {"arm": b.arm, "parts": b.parts, "rounds": b.rounds, "where": b.where}
                        for b in block.bars
                    ],
                }
            )
        elif isinstance(block, Curves):
            charts.append(
                {
                    "type": "curves",
                    "id": block.identity,
                    "rows": [
                        {"arm": c.arm, "points": c.points, "faint": c.faint, "where": c.where}
                        for c in block.curves
                    ],
                }
            )
        elif isinstance(block, Lines):
            charts.append(
                {
                    "type": "multiples" if isinstance(block, Multiples) else "lines",
                    "id": block.identity,
                    "x_unit": block.x_unit,
                    "y_unit": block.y_unit,
                    "is_log_x": block.is_log_x,
                    "rows": [
                        {"arm": line.arm, "points": line.points, "where": line.where}
                        for line in block.lines
                    ],
                }
            )
        elif isinstance(block, Ratios):
            charts.append(
                {
                    "type": "ratios",
                    "id": block.identity,
                    "margin": block.margin,
                    "rows": [
                        {"arm": one.name, "value": one.value, "tone": one.tone, "where": {}}
                        for one in block.ratios
                    ],
                }
            )
    choices = {b.key: b.values[0] for b in blocks if isinstance(b, Choice) and b.values}
    return {"choices": choices, "charts": charts}


# ---- the page ---------------------------------------------------------------------------------


def _probe_text(probe: Facts) -> str:
    """What netpoll found on this machine, in one line."""
    if "unavailable" in probe:
        return str(probe["unavailable"])
    there = ", ".join(f["name"] for f in probe["features"] if f["available"])
    return (
        f"auto takes {probe['backend']}: {probe['backend_reason']}; liburing {probe['liburing']}; "
        f"there are {there}; transparent huge pages: {probe['hugepages']['transparent']}"
    )


def _machines(settings: Facts) -> dict[str, str]:
    """Those that took part beside the one that wrote the document."""
    terms = {}
    for name, facts in settings.get("hosts", {}).items():
        e = facts["environment"]
        terms[f"Machine of the {name}"] = (
            f"{facts['agent']}: Linux {e['kernel']}, {e['cpu_model']}, {e['cpu_count']} CPUs, "
            f"Python {e['python']}"
        )
    return terms


def _facts(document: Document) -> str:
    """Everything the figures depend on, as a list of terms."""
    e, settings = document["environment"], document["settings"]
    versions = ", ".join(
        f"{name} {facts['version']}" if facts["version"] else name
        for name, facts in document["arms"].items()
        if not facts["skipped"]
    )
    terms = {
        "Kernel": f"Linux {e['kernel']}, {e['machine']}",
        "Processor": f"{e['cpu_model']}, {e['cpu_count']} CPUs"
        + (", virtual machine" if e["hypervisor"] else ""),
        "Frequency governor": e["cpu_governor"] or "not visible",
        "Spectre v2": e["spectre_v2"] or "not visible",
        "Load average at the start": ", ".join(f"{x:.2f}" for x in e["load_average"]),
        "Python": f"{e['python_implementation']} {e['python']}, {e['python_compiler']}, "
        + ("with the GIL" if e["gil"] else "free-threaded")
        + ("" if e["python_optimized"] else ", not built with --enable-optimizations"),
        "C library": e["libc"],
        "Cores": e["pinning"]["sentence"],
        "Arms": versions,
        "netpoll": _probe_text(e["netpoll_probe"]),
        "Settings": "; ".join(
            f"{name} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
            for name, value in settings.items()
            if name not in ("cells", "hosts") and value is not None
        ),
        **_machines(settings),
        "Command": "python -m netpoll " + " ".join(document["command"]),
    }
    items = "".join(_tag("dt", escape(k)) + _tag("dd", escape(str(v))) for k, v in terms.items())
    return _tag("div", _tag("dl", items), class_="card")


def _notices(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(_tag("li", escape(line)) for line in lines)
    return f'<div class="notice small"><ul>{items}</ul></div>'


def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def whole(title: str, intro: str, notices: Sequence[str], blocks: Sequence[Block]) -> str:
    """A page of these blocks. title: of its head; notices: what has to be seen first."""
    parts = (
        _tag("h1", escape(title)),
        _tag("p", escape(intro), class_="soft small"),
        _notices(notices),
        *(DRAWN[type(block)](block) for block in blocks),
    )
    return _filled(title, "".join(parts), blocks)


def _filled(title: str, body: str, blocks: Sequence[Block]) -> str:
    template = Template(files("netpoll.bench").joinpath("page.html").read_text())
    return template.safe_substitute(
        title=escape(title), body=body, data=_embedded(_data(blocks)), plotly=_packed_plotly()
    )


def page(document: Document) -> str:
    """The HTML of any document. Raises ValueError when no kind wrote it."""
    kind = kind_of(document)
    minutes, seconds = divmod(round(document["elapsed_s"]), 60)
    lasted = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    intro = " · ".join(sentences(document["environment"]))
    blocks = kind.section(document)
    body = "".join(
        (
            _tag("h1", escape(kind.title)),
            (
                f'<p class="soft small">netpoll bench {kind.name}, {escape(document["started"])}, '
                f"{lasted}. {escape(intro)}</p>"
            ),
            _notices(problems(document)),
            *(DRAWN[type(block)](block) for block in blocks),
            "<h2>Method</h2>",
            *(_tag("p", escape(part)) for part in kind.method.strip().split("\n\n")),
            "<h2>What the figures depend on</h2>",
            _facts(document),
        )
    )
    return _filled(f"netpoll bench {kind.name}", body, blocks)
