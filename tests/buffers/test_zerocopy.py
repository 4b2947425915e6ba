"""Where zero-copy is real, by the kernel's own reports."""

import pytest

from netpoll import probe

pytest.importorskip("psutil", reason="the benchmark's extra is not installed")

from netpoll.bench.cores import choose_pinning
from netpoll.bench.kinds.zerocopy import summarize
from netpoll.bench.sendpaths import measure, why_not

SIZE_BYTES = 65536
TOTAL_BYTES = 4 << 20


def reports(path: str) -> dict[str, dict]:
    if not probe().uring_available:
        pytest.skip("io_uring is not available here")
    if reason := why_not(path):
        pytest.skip(reason)
    pinning = choose_pinning()
    cpus = pinning.server_cpu, pinning.load_cpu
    rows = summarize(path, measure(path, (SIZE_BYTES,), 1, TOTAL_BYTES, cpus))
    return {row["way"]: row for row in rows}


@pytest.mark.parametrize("path", ["loopback", "veth"])
def test_a_path_to_this_machine_copies(path):
    """Another network namespace is this machine, too: its socket gets a copy."""
    for way, row in reports(path).items():
        assert row["not_copied_share"] == 0, way


def test_a_device_that_swallows_packets_copies_nothing():
    rows = reports("device")
    assert rows.pop("plain")["not_copied_share"] == 0
    for way, row in rows.items():
        assert row["not_copied_share"] > 0.5, way  # but for what had to be sent again
