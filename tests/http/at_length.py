"""Generated requests and their mutations, as many as one likes, beside the other readers:

    python -m tests.http.at_length --streams 10000000 --jobs 2

The same comparison as that of test_parser_oracles.py and test_node.py, in batches. Prints how many
streams each oracle has judged and for which reasons the two differ; ends with 1, and with the
streams, when there is a difference without a reason.
"""

import argparse
import contextlib
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator

from . import judge, node
from .generator import stream
from .oracles import Verdict
from .requests import Outcome, read

BATCH_COUNT = 500
# One stream in so many is read byte by byte, too: tests/c/fuzz_http1.c is there for cuts.
CUT_EVERY = 16
SHOWN_MAX_COUNT = 20

Reader = Callable[[list[bytes]], list[Verdict]]
Found = tuple[dict[str, Counter[str]], list[str]]


def _one_by_one(read_one: Callable[[bytes], Verdict]) -> Reader:
    return lambda streams: [read_one(data) for data in streams]


@contextlib.contextmanager
def _readers(names: list[str]) -> Iterator[dict[str, Reader]]:
    with contextlib.ExitStack() as stack:
        found: dict[str, Reader] = {}
        for name in names:
            if name == "node":
                path = shutil.which("node") or "node"
                found[name] = stack.enter_context(node.started(path)).read
            else:
                found[name] = _one_by_one(judge.READERS[name])
        yield found


def _compare(name: str, data: bytes, ours: Outcome, theirs: Verdict, wrong: list[str]) -> str:
    try:
        return judge.compare(name, ours, theirs) or "the same"
    except judge.Disagreement as difference:
        wrong.append(f"{name}: {data!r}\n{difference}")
        return "WRONG"


def _batch(readers: dict[str, Reader], seeds: range) -> Found:
    wrong: list[str] = []
    streams = [stream(seed) for seed in seeds]
    outcomes = [read(data) for data in streams]
    for data, outcome in list(zip(streams, outcomes, strict=True))[::CUT_EVERY]:
        if read(data, 1) != outcome:
            wrong.append(f"by bytes: {data!r}")
    counts = {}
    for name, reader in readers.items():
        rows = zip(streams, outcomes, reader(streams), strict=True)
        counts[name] = Counter(_compare(name, *row, wrong) for row in rows)
    return counts, wrong


def _work(
    names: list[str],
    seeds: range,
    end_s: float,
    out: "multiprocessing.SimpleQueue[Found | None]",
) -> None:
    with _readers(names) as readers:
        for first in range(seeds.start, seeds.stop, BATCH_COUNT):
            if time.monotonic() > end_s:
                break
            out.put(_batch(readers, range(first, min(first + BATCH_COUNT, seeds.stop))))
    out.put(None)


def _say(counts: dict[str, Counter[str]]) -> None:
    for name, reasons in counts.items():
        print(f"{name}: {reasons.total()} streams")
        for reason, count in reasons.most_common():
            print(f"    {count:9} {reason}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first stream")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--oracles", default="llhttp,h11", help="of llhttp, h11, node")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="at most")
    args = parser.parse_args()
    names = args.oracles.split(",")
    out: multiprocessing.SimpleQueue[Found | None] = multiprocessing.SimpleQueue()
    share = -(-args.streams // args.jobs)
    end = args.first + args.streams
    end_s = time.monotonic() + 60 * args.minutes
    for first in range(args.first, end, share):
        seeds = range(first, min(first + share, end))
        multiprocessing.Process(target=_work, args=(names, seeds, end_s, out)).start()
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    wrong_count = 0
    left = args.jobs
    next_word_s = time.monotonic() + 60
    while left:
        found = out.get()
        if found is None:
            left -= 1
            continue
        for name, some in found[0].items():
            counts[name] += some
        for text in found[1][: max(0, SHOWN_MAX_COUNT - wrong_count)]:
            print(text, end="\n\n", flush=True)
        wrong_count += len(found[1])
        if time.monotonic() > next_word_s:
            next_word_s += 60
            print({name: some.total() for name, some in counts.items()}, wrong_count, flush=True)
    _say(counts)
    print(f"{wrong_count} differences without a reason")
    return int(bool(wrong_count))


if __name__ == "__main__":
    raise SystemExit(main())
