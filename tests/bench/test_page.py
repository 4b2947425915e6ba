"""The page in a real browser: every chart is drawn, nothing is complained of, in light and dark and
on paper."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import cli, compare
from netpoll.bench.page import whole

from ..http.browser import BROWSER, Browser, Page, browsing

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
    pytest.mark.skipif("NETPOLL_SANITIZED" in os.environ, reason="the browser is not sanitized"),
]
SHORT = ["--rounds", "2", "--duration-s", "0.1", "--warmup-s", "0.01"]

# Each chart: its id, and how many drawings with something in them there are; -1: it is hidden.
CHARTS = """JSON.stringify(Object.fromEntries(data.charts.map(chart => {
  const place = document.getElementById(chart.id);
  const drawn = [place, ...place.querySelectorAll(".js-plotly-plot")].filter(
    one => one.classList.contains("js-plotly-plot") && one.querySelector(".main-svg .trace"));
  return [chart.id, place.closest("figure").hidden ? -1 : drawn.length];
})))"""
COLOURS = "getComputedStyle(document.body).color + getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as found:
        yield found


def opened(browser: Browser, path: Path) -> Page:
    """The page, drawn."""
    page = browser.open("about:blank")
    for domain in ("Runtime", "Log", "Page"):
        page.call(f"{domain}.enable")
    page.call("Page.navigate", url=path.as_uri())
    page.wait_for("document.documentElement.dataset.charts", "drawn")
    return page


def complaints(page: Page) -> list[str]:
    """What the console has."""
    page.run("1")  # what was told until now has been read
    found = []
    for event in page.browser.events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            found.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            found.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            found.append(json.dumps(params["args"])[:500])
    return found


def charts(page: Page) -> dict[str, int]:
    found: dict[str, int] = json.loads(page.run(CHARTS))
    return found


def files(folder: Path) -> list[str]:
    return ["--json", str(folder / "r.json"), "--html", str(folder / "r.html")]


def media(page: Page, scheme: str = "light", kind: str = "screen") -> str:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", media=kind, features=features)
    page.wait_for("matchMedia('(prefers-color-scheme: dark)').matches", scheme == "dark")
    page.wait_for("matchMedia('print').matches", kind == "print")
    return str(page.run(COLOURS))


def test_a_run_with_a_curve(browser: Browser, tmp_path: Path) -> None:
    words = ["--arms", "asyncio,floor-epoll", "--modes", "protocol", "--cells", "4x64,2x128KiB"]
    assert cli.main(["echo", "--curve", *words, *SHORT, *files(tmp_path)]) == 0
    page = opened(browser, tmp_path / "r.html")
    found = charts(page)
    assert set(found) == {"cpu", "rate", "rate-bulk", "latency", "offered", "offered-each"}
    assert found.pop("rate-bulk") == -1  # of small messages there is no such chart
    assert found.pop("offered-each") == 2  # one for each arm
    assert set(found.values()) == {1}
    page.run("document.querySelectorAll('[data-key=cell] button')[1].click()")
    page.wait_for("document.getElementById('rate').closest('figure').hidden", True)
    assert charts(page)["rate-bulk"] == 1
    assert complaints(page) == []


def test_light_dark_and_paper(browser: Browser, tmp_path: Path) -> None:
    words = ["--arms", "floor-epoll", "--axes", "size,load", "--sizes", "64,4KiB"]
    assert cli.main(["scale", *words, *SHORT, *files(tmp_path)]) == 0
    page = opened(browser, tmp_path / "r.html")
    light, dark = media(page), media(page, "dark")
    assert light != dark
    ink = "getComputedStyle(document.querySelector('.main-svg .xtick text')).fill"
    page.wait_for(ink, page.run("getComputedStyle(document.body).color"))  # drawn again
    paper = media(page, "dark", "print")
    assert paper == "rgb(0, 0, 0)rgb(255, 255, 255)"  # whatever the screen has
    page.wait_for(ink, "rgb(0, 0, 0)")
    hidden = (
        "getComputedStyle(document.querySelector('.choices button[aria-pressed=false]')).display"
    )
    assert page.run(hidden) == "none"
    found = charts(page)
    assert set(found) == {"scale-size", "scale-load", "each-size", "each-load"}
    assert set(found.values()) == {1}
    printed = page.call("Page.printToPDF", printBackground=True)
    assert len(printed["result"]["data"]) > 10_000
    assert complaints(page) == []


def test_a_narrow_screen_does_not_scroll(browser: Browser, tmp_path: Path) -> None:
    words = ["--arms", "asyncio,floor-epoll", "--modes", "protocol", "--cells", "4x64"]
    assert cli.main(["echo", *words, *SHORT, *files(tmp_path)]) == 0
    page = opened(browser, tmp_path / "r.html")
    size = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    page.wait_for("innerWidth", 360)
    page.wait_for("document.documentElement.scrollWidth <= innerWidth", True)
    assert complaints(page) == []


def compared(count: int = 3) -> dict[str, Any]:
    rows = [
        {
            "workload": f"work {number} <b>",
            "arm": "netpoll-epoll",
            "mode": "-",
            "quantity": "ns",
            "before": 100.0,
            "after": 100.0 * ratio,
            "ratio": ratio,
            "verdict": verdict,
            "p": 0.01,
            "why": "",
        }
        for number, (ratio, verdict) in enumerate(
            [(1.5, "worse"), (1.0, "equal"), (0.5, "better")][:count]
        )
    ]
    return {
        "schema": compare.SCHEMA,
        "of": "netpoll.bench.micro/1",
        "started": ["2026-01-01", "2026-01-02"],
        "level": 0.05,
        "margin": 0.03,
        "differences": ["different kernel: 6.1 and 6.2"],
        "rows": rows,
    }


def test_a_comparison(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    path.write_text(compare.page_of(compared()))
    page = opened(browser, path)
    assert charts(page) == {"ratios": 1}
    assert page.run("document.querySelectorAll('#ratios .point').length") == 3
    assert page.run("document.querySelector('.notice').textContent").strip() == (
        "careful: different kernel: 6.1 and 6.2."
    )
    assert "work 0 <b>" in page.run("document.querySelector('table').textContent")
    assert complaints(page) == []


def test_what_is_complained_of_is_seen(browser: Browser, tmp_path: Path) -> None:
    """The test of the tests above: a page with a fault in it."""
    text = whole("broken", "", [], [])
    path = tmp_path / "broken.html"
    path.write_text(text.replace("</body>", "<script>console.error('alas'); nobody();</script>"))
    page = opened(browser, path)
    assert len(complaints(page)) == 2
