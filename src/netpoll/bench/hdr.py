"""Latencies as a log of HdrHistogram, which its tools read: one line for each histogram.

The tag of a line says whose it is: `4x64/asyncio/protocol`, and behind `@` the offered load, if
there was one. Values are nanoseconds.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterator
from pathlib import Path

from netpoll.bench.errors import UsageError
from netpoll.bench.records import Document, Row

__all__ = ["require_library", "write_log"]

LOWEST_NS, HIGHEST_NS, DIGITS = 1, 3_600_000_000_000, 3
STARTED_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def require_library() -> None:
    """Raises UsageError when the library is missing."""
    if importlib.util.find_spec("hdrh") is None:
        raise UsageError("--hdr needs hdrhistogram: pip install 'netpoll[bench-more]'")


def _tag(*words: object) -> str:
    """No commas, spaces or line ends may stand in a tag."""
    text = "/".join(str(word).replace(" × ", "x") for word in words if word not in (None, "-"))
    return re.sub(r"[,\s]", "", text)


def _histograms(row: Row) -> Iterator[tuple[str, list[list[int]]]]:
    """(tag, histogram) of a row."""
    tag = _tag(row.get("cell", row.get("work")), row["arm"], row["mode"])
    if row["rounds"]:
        yield tag, row["histogram_ns"]
        for each in row.get("offered", ()):
            yield f"{tag}@{each['percent']:g}%", each["histogram_ns"]


def write_log(path: Path, document: Document) -> None:
    """Writes every histogram of a document. Raises OSError."""
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogWriter

    start_s = time.mktime(time.strptime(document["started"], STARTED_FORMAT))
    with path.open("w") as file:
        writer = HistogramLogWriter(file)
        writer.output_log_format_version()
        writer.output_comment("netpoll bench " + " ".join(document["command"]))
        writer.output_comment("nanoseconds")
        writer.output_comment(f"[StartTime: {start_s:f} (seconds since epoch)]")
        writer.output_legend()
        for row in document["rows"]:
            for tag, pairs in _histograms(row):
                histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
                for top_ns, count in pairs:
                    histogram.record_value(max(top_ns, LOWEST_NS), count)
                file.write(f"Tag={tag},")  # which the writer leaves out
                writer.output_interval_histogram(
                    histogram, start_s, start_s + document["elapsed_s"], 1.0
                )
