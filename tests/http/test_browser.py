"""A real browser: WebSocket and server-sent events of one page."""

import os
from pathlib import Path

import pytest

from tests.http.browser import BROWSER, browsing
from tests.http.test_http_examples import example

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
    pytest.mark.skipif("NETPOLL_SANITIZED" in os.environ, reason="the browser is not sanitized"),
]


def test_a_page_gets_messages_and_events(backend: str, tmp_path: Path) -> None:
    with example("live.py", backend) as client, browsing(tmp_path) as browser:
        first, second = (browser.open(f"http://127.0.0.1:{client.port}/") for _ in range(2))
        for page in (first, second):
            page.wait_for("result.textContent", "0 : 0")
            page.wait_for("socket.readyState", 1)
        first.run("yes.click()")
        first.wait_for("receipt.textContent", "vote 1 is yours")
        second.run("no.click()")
        second.wait_for("receipt.textContent", "vote 2 is yours")
        for page in (first, second):
            page.wait_for("result.textContent", "1 : 1")
        assert first.run("receipt.textContent") == "vote 1 is yours"


def test_the_server_closes_what_the_page_has_opened(backend: str, tmp_path: Path) -> None:
    with example("live.py", backend) as client, browsing(tmp_path) as browser:
        page = browser.open(f"http://127.0.0.1:{client.port}/")
        page.wait_for("socket.readyState", 1)
        page.run("socket.onclose = (event) => { receipt.textContent = event.code; }")
        page.run("socket.send('perhaps')")
        page.wait_for("receipt.textContent", "1003")
