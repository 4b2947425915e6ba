"""The page: one HTML file with tables, charts and the method; it needs no network.

The tables are plain HTML and are there without JavaScript. The charts are drawn by plotly.js, which
is embedded compressed (a third of its size) and unpacked by the browser.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from netpoll.bench.display import (
    LEGEND,
    MODE_TITLES,
    echo_footnotes,
    number,
    problems,
    rate,
    ratio,
)
from netpoll.bench.document import kind_of
from netpoll.bench.environment import sentences

CURVE = (
    *(p / 100 for p in range(0, 100, 5)),
    *(0.9 + p / 1000 for p in range(60, 100, 5)),
    *(1 - step * 10**-power for power in (2, 3, 4, 5) for step in (1.0, 0.5, 0.2)),
)

METHOD = {
    "echo": """
<p>Each server is a process of its own on one core, the load generator (C) on another. Each
connection sends one message, waits until the same bytes came back, and sends again: a closed loop,
so a slow answer delays the next question and the latencies are those of a saturated server, not of
a given rate. The answers are compared with what was sent.</p>
<p>Arms are interleaved: every round measures every cell with every arm once, each round beginning
at another arm. One measurement is a warm-up and a window; between the two, and after, nothing is in
flight, so that the CPU time read from the server's process clocks belongs to exactly the requests
counted. It holds user and system time of all its threads, and is the figure to trust: requests per
second also depend on the load's core. In loopback TCP the receiver's kernel work is partly done by
the sender, the load.</p>
<p>Figures are medians over the rounds; a dot in the chart is one round. Ratios are medians of the
ratios round by round, so that what slows the whole machine for a while cancels out.</p>
""",
    "micro": """
<p>Each loop is a process of its own, pinned to one core; rounds are interleaved. The figure is CPU
time of the process, not the clock on the wall, per operation. Figures are medians over the rounds;
a dot is one round.</p>
""",
    "files": """
<p>Each arm is a process of its own, pinned to one core; rounds are interleaved. The figure is CPU
time of the process, user and system, of all its threads, per operation. The file is in the page
cache. Figures are medians over the rounds; a dot is one round.</p>
""",
    "relay": """
<p>Each server is a process of its own on one core; the load, and the echo in C behind a proxy, run
on another. Arms are interleaved. The figure is CPU time of the server, user and system. Figures are
medians over the rounds; a dot is one round.</p>
""",
    "sched": """
<p>Each arm is a process of its own, on all CPUs; rounds are interleaved. Costs (post, spawn) are
CPU time of the process per operation; parallel work and waits are time on the wall. A ratio
compares with the arm that the line names, round by round. An urgent task is one in the CONTROL lane
where an arm has lanes, and one at the end of the queue where it has none; 400 tasks of 50 µs are
queued at any time. Figures are medians over the rounds; a dot is one round.</p>
""",
    "idle": """
<p>Each server is a process of its own. It has served a hundred connections before; then all
connections are opened and have one message echoed, so that each was accepted and used. The figure
is the growth of the memory that only the server's process has, per connection. What the kernel
keeps for a socket is not in it: it is the same for all. Figures are medians over the rounds; a dot
is one round.</p>
""",
}


def _tag(name: str, content: str, **attributes: str) -> str:
    inside = "".join(f' {k.rstrip("_")}="{escape(v)}"' for k, v in attributes.items() if v)
    return f"<{name}{inside}>{content}</{name}>"


def _table(head: Sequence[str], lines: Iterable[str], caption: str = "") -> str:
    cells = "".join(_tag("th", escape(name), scope="col") for name in head)
    title = _tag("p", caption, class_="caption") if caption else ""
    body = "".join(lines)
    return _tag(
        "div",
        f'{title}<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        class_="card",
    )


def _line(head: str, cells: Iterable[str], own: bool = False) -> str:
    return f"<tr>{_tag('th', head, scope='row', class_='own' if own else '')}{''.join(cells)}</tr>"


def _group_line(title: str, width: int) -> str:
    return f'<tr><th class="group" scope="rowgroup">{escape(title)}</th>{"<td></td>" * width}</tr>'


def _judged(value: float | None, suffix: str = "") -> str:
    if value is None:
        return "<td>–</td>"
    kind = "good" if value < 0.98 else "bad" if value > 1.02 else ""
    return _tag("td", ratio(value) + suffix, class_=kind)


def _bar(value: float, most: float, text: str) -> str:
    share = 100 * value / most if most else 0
    gradient = "linear-gradient(var(--bar), var(--bar))"
    style = f"background-image: {gradient}; background-size: {share:.0f}% 70%"
    return _tag("td", text, class_="bar key", style=style)


def _shade(versus: float | None) -> str:
    """A background from green (half the control's cost) over none to red (twice)."""
    if versus is None:
        return ""
    strength = min(abs(1 - versus) * 0.8 if versus < 1 else (versus - 1) * 0.4, 0.4)
    fill = "--good-fill" if versus < 1 else "--bad-fill"
    return f"background: rgba(var({fill}), {strength:.2f})"


def _own(arm: str) -> bool:
    return arm.startswith("netpoll")


def _distinct(rows: Iterable[dict], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _notices(document: dict) -> str:
    lines = problems(document)
    if not lines:
        return ""
    items = "".join(_tag("li", escape(line)) for line in lines)
    return f'<div class="notice small"><ul>{items}</ul></div>'


def _choices(identity: str, values: Iterable[str], titles: Callable[[str], str]) -> str:
    buttons = "".join(
        f'<button type="button" data-value="{escape(v)}">{escape(titles(v))}</button>'
        for v in values
    )
    return f'<div class="choices" id="{identity}">{buttons}</div>'


def _figure(identity: str, caption: str) -> str:
    return (
        f'<figure class="card"><figcaption>{caption}</figcaption>'
        f'<div id="{identity}"></div></figure>'
    )


# ---- echo ----


def _overview(document: dict) -> str:
    """All cells at once: CPU per request, shaded by the ratio to asyncio."""
    rows = [row for row in document["rows"] if row["rounds"]]
    cells = _distinct(rows, "cell")
    lines = []
    for mode in _distinct(rows, "mode"):
        lines.append(_group_line(MODE_TITLES[mode], len(cells)))
        group = [row for row in rows if row["mode"] == mode]
        for arm in _distinct(group, "arm"):
            line = []
            for cell in cells:
                row = next((r for r in group if r["arm"] == arm and r["cell"] == cell), None)
                if row is None:
                    line.append("<td>–</td>")
                    continue
                versus = row["cpu_vs_asyncio"]
                sub = f' <span class="sub">{ratio(versus)}</span>' if versus is not None else ""
                text = number(row["cpu_us"]["median"]) + sub
                line.append(_tag("td", text, style=_shade(versus)))
            lines.append(_line(escape(arm), line, _own(arm)))
    caption = (
        "Server CPU per request, µs, and in small figures its ratio to asyncio in the same mode "
        "(green: less)."
    )
    return _table(["connections × message", *cells], lines, caption)


def _echo_line(row: dict, most_us: float, with_calls: bool) -> str:
    if not row["rounds"]:
        return _line(
            escape(row["arm"]),
            [f'<td class="failed" colspan="9">{escape(row["fault"] or "not measured")}</td>'],
            _own(row["arm"]),
        )
    latency, cpu = row["latency_us"], row["cpu_us"]
    mark = ' <span title="disturbed">!</span>' if row["disturbed_rounds"] else ""
    spread = f' <span class="sub">±{cpu["spread_percent"]:.0f} %</span>'
    cells = [
        _bar(cpu["median"], most_us, number(cpu["median"]) + spread),
        _tag("td", number(cpu["min"])),
        _tag("td", number(row["cpu_user_us"])),
        _tag("td", number(row["cpu_system_us"])),
        _judged(row["cpu_vs_asyncio"]),
        _judged(row["cpu_vs_uvloop"]),
        _judged(row["cpu_vs_floor_epoll"]),
        _judged(row["cpu_vs_floor_uring"]),
        _tag("td", rate(row["requests_per_s"]["median"])),
        _tag("td", number(row["mb_per_s"]["median"])),
        *(_tag("td", number(latency[p])) for p in ("p50", "p99", "p99.9", "max")),
    ]
    if with_calls:
        calls = row["syscalls_per_request"] or {}
        cells += [_tag("td", number(calls.get(name))) for name in ("all", "io_uring_enter")]
    return _line(escape(row["arm"]) + mark, cells, _own(row["arm"]))


def _echo_tables(document: dict) -> str:
    parts = []
    rows = document["rows"]
    for cell in _distinct(rows, "cell"):
        here = [row for row in rows if row["cell"] == cell]
        measured = [row for row in here if row["rounds"]]
        if not measured:
            continue
        with_calls = any(row["syscalls_per_request"] for row in measured)
        most_us = max(row["cpu_us"]["median"] for row in measured)
        head = ["arm", "CPU µs", "min", "user", "sys", "× asyncio", "× uvloop"]
        head += ["× floor-epoll", "× floor-uring", "req/s", "MB/s", "p50 µs", "p99", "p99.9", "max"]
        head += ["calls/req", "enters/req"] if with_calls else []
        lines = []
        for mode in _distinct(here, "mode"):
            lines.append(_group_line(MODE_TITLES[mode], len(head) - 1))
            group = [row for row in here if row["mode"] == mode]
            group.sort(key=lambda r: r["cpu_us"]["median"] if r["rounds"] else float("inf"))
            lines += [_echo_line(row, most_us, with_calls) for row in group]
        parts.append(_table(head, lines, f"<b>{escape(cell)}</b>"))
    return "".join(parts)


def _curve(histogram: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
    """(part of the requests, latency in µs) at the points of CURVE that so many requests carry."""
    total = sum(count for _, count in histogram)
    points, below, position = [], 0, 0
    for part in sorted(CURVE):
        if (1 - part) * total < 1:
            break
        while position < len(histogram) - 1 and below + histogram[position][1] < part * total:
            below += histogram[position][1]
            position += 1
        points.append((part, histogram[position][0] / 1e3))
    return points


def _echo_data(document: dict) -> dict:
    rows = [row for row in document["rows"] if row["rounds"]]
    return {
        "kind": "echo",
        "cells": _distinct(rows, "cell"),
        "modes": [m for m in _distinct(rows, "mode") if m != "-"] or ["-"],
        "rows": [
            {
                "cell": row["cell"],
                "arm": row["arm"],
                "mode": row["mode"],
                "size_bytes": row["size_bytes"],
                "cpu": row["cpu_us"]["median"],
                "cpu_rounds": row["cpu_us_by_round"],
                "user": row["cpu_user_us"],
                "system": row["cpu_system_us"],
                "rate": row["requests_per_s"]["median"],
                "mb": row["mb_per_s"]["median"],
                "curve": _curve(row["histogram_ns"]),
            }
            for row in rows
        ],
    }


def _echo_body(document: dict) -> str:
    data = _echo_data(document)
    notes = "".join(
        _tag("p", escape(note), class_="small soft")
        for note in echo_footnotes(document, narrow=False)
        if note != LEGEND
    )
    return "".join(
        (
            "<h2>All cells</h2>",
            _overview(document),
            "<h2>One cell</h2>",
            _choices("choose-cell", data["cells"], str),
            _choices("choose-mode", data["modes"], MODE_TITLES.__getitem__),
            _figure(
                "cpu",
                "<b>Server CPU per request, µs.</b> Dark: in the kernel; light: in user space; "
                "each dot is a round. Less is better.",
            ),
            _figure("rate", '<b>Rate, <span id="rate-unit"></span>.</b> More is better.'),
            _figure(
                "latency",
                "<b>Latency of the requests, µs,</b> up to which part of them: the further right, "
                "the rarer. Dotted: without an event loop.",
            ),
            "<h2>Figures</h2>",
            _echo_tables(document),
            notes,
        )
    )


# ---- micro and idle ----


def _micro_body(document: dict, control: str = "asyncio", versus: str = "vs_asyncio") -> str:
    rows = [row for row in document["rows"] if row["rounds"]]
    arms = _distinct(rows, "arm")
    lines, figures = [], []
    for workload in _distinct(rows, "workload"):
        line = {row["arm"]: row for row in rows if row["workload"] == workload}
        cells = []
        for arm in arms:
            if arm not in line:
                cells.append("<td>–</td>")
                continue
            value = line[arm][versus]
            sub = f' <span class="sub">{ratio(value)}</span>' if value is not None else ""
            text = number(line[arm]["ns"]["median"]) + sub
            cells.append(_tag("td", text, style=_shade(value)))
        title = next(iter(line.values()))["title"]
        lines.append(_line(escape(title), cells))
        figures.append(_figure(f"micro-{workload}", f"<b>{escape(title)}</b>, ns"))
    caption = f"ns of CPU per operation, and in small figures the ratio to {control}."
    return (
        "<h2>Figures</h2>" + _table(["operation", *arms], lines, caption) + "<h2>Charts</h2>"
    ) + "".join(figures)


def _files_body(document: dict) -> str:
    return _micro_body(document, "aiofiles", "vs_control")


def _relay_body(document: dict) -> str:
    return _micro_body(document, "uvloop", "vs_control")


def _micro_data(document: dict) -> dict:
    rows = [row for row in document["rows"] if row["rounds"]]
    return {
        "kind": "micro",
        "workloads": _distinct(rows, "workload"),
        "rows": [
            {
                "workload": row["workload"],
                "arm": row["arm"],
                "value": row["ns"]["median"],
                "rounds": row["ns_by_round"],
            }
            for row in rows
        ],
    }


def _sched_body(document: dict) -> str:
    rows = [row for row in document["rows"] if row["rounds"]]
    arms = _distinct(rows, "arm")
    lines, figures = [], []
    for workload in _distinct(rows, "workload"):
        line = {row["arm"]: row for row in rows if row["workload"] == workload}
        first = next(iter(line.values()))
        cells = []
        for arm in arms:
            if arm not in line:
                cells.append("<td>–</td>")
                continue
            versus = line[arm]["vs_control"]
            sub = f' <span class="sub">{ratio(versus)}</span>' if versus is not None else ""
            text = number(line[arm]["ns"]["median"]) + sub
            cells.append(_tag("td", text, style=_shade(versus)))
        title = f"{first['title']}, × {first['control']}"
        lines.append(_line(escape(title), cells))
        figures.append(_figure(f"micro-{workload}", f"<b>{escape(first['title'])}</b>, ns"))
    caption = "ns per operation, and in small figures the ratio to the arm that the line names."
    return (
        "<h2>Figures</h2>" + _table(["operation", *arms], lines, caption) + "<h2>Charts</h2>"
    ) + "".join(figures)


def _idle_body(document: dict) -> str:
    rows = [row for row in document["rows"] if row["rounds"]]
    most = max(row["bytes"]["median"] for row in rows) if rows else 0
    lines = []
    for mode in _distinct(rows, "mode"):
        lines.append(_group_line(MODE_TITLES[mode], 3))
        for row in sorted(
            (r for r in rows if r["mode"] == mode), key=lambda r: r["bytes"]["median"]
        ):
            spread = row["bytes"]
            sub = f' <span class="sub">±{spread["spread_percent"]:.0f} %</span>'
            cells = [
                _bar(spread["median"], most, number(spread["median"]) + sub),
                _tag("td", number(spread["min"])),
                _judged(row["vs_asyncio"]),
            ]
            lines.append(_line(escape(row["arm"]), cells, _own(row["arm"])))
    caption = f"Bytes per idle connection, {document['settings']['connections']} connections."
    figures = "".join(
        _figure(f"idle-{mode}", f"<b>{escape(MODE_TITLES[mode])}</b>, bytes per connection")
        for mode in _idle_data(document)["modes"]
    )
    table = _table(["arm", "bytes", "min", "× asyncio"], lines, caption)
    return f"<h2>Figures</h2>{table}<h2>Charts</h2>{figures}"


def _idle_data(document: dict) -> dict:
    rows = [row for row in document["rows"] if row["rounds"]]
    return {
        "kind": "idle",
        "modes": [m for m in _distinct(rows, "mode") if m != "-"] or ["-"],
        "rows": [
            {
                "arm": row["arm"],
                "mode": row["mode"],
                "value": row["bytes"]["median"],
                "rounds": row["bytes_by_round"],
            }
            for row in rows
        ],
    }


# ---- the page ----

TITLES = {
    "echo": "Echo servers under load",
    "micro": "What a loop does all day",
    "sched": "What a scheduler does all day",
    "idle": "Memory of idle connections",
    "files": "Reading files",
    "relay": "Accepting, forwarding, broadcasting",
}
_BODIES = {
    "echo": _echo_body,
    "micro": _micro_body,
    "idle": _idle_body,
    "files": _files_body,
    "relay": _relay_body,
    "sched": _sched_body,
}
_DATA = {
    "echo": _echo_data,
    "micro": _micro_data,
    "idle": _idle_data,
    "files": _micro_data,
    "relay": _micro_data,
    "sched": _micro_data,
}


def _probe_text(probe: dict) -> str:
    """What netpoll found on this machine, in one line."""
    if "unavailable" in probe:
        return str(probe["unavailable"])
    there = ", ".join(f["name"] for f in probe["features"] if f["available"])
    return (
        f"auto takes {probe['backend']}: {probe['backend_reason']}; liburing {probe['liburing']}; "
        f"there are {there}; transparent huge pages: {probe['hugepages']['transparent']}"
    )


def _facts(document: dict) -> str:
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
            f"{name} {' '.join(value) if isinstance(value, (list, tuple)) else value}"
            for name, value in settings.items()
            if name != "cells" and value is not None
        ),
        "Command": "python -m netpoll " + " ".join(document["command"]),
    }
    items = "".join(_tag("dt", escape(k)) + _tag("dd", escape(str(v))) for k, v in terms.items())
    return _tag("div", _tag("dl", items), class_="card")


def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _embedded(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def page(document: dict) -> str:
    """The HTML of any document that `document.kind_of` knows."""
    kind = kind_of(document)
    title = TITLES[kind]
    minutes, seconds = divmod(round(document["elapsed_s"]), 60)
    lasted = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    intro = " · ".join(sentences(document["environment"]))
    body = "".join(
        (
            f"<h1>{title}</h1>",
            (
                f'<p class="soft small">netpoll bench {kind}, {escape(document["started"])}, '
                f"{lasted}. {escape(intro)}</p>"
            ),
            _notices(document),
            _BODIES[kind](document),
            "<h2>Method</h2>",
            METHOD[kind],
            "<h2>What the figures depend on</h2>",
            _facts(document),
        )
    )
    template = Template(files("netpoll.bench").joinpath("page.html").read_text())
    return template.safe_substitute(
        title=f"netpoll bench {kind}",
        body=body,
        data=_embedded(_DATA[kind](document)),
        plotly=_packed_plotly(),
    )


def write_html(document: dict, path: Path) -> None:
    """Writes the page; the file is there wholly or not at all."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(page(document))
    scratch.replace(path)
