"""Work over threads, by priority: a crawl of made-up pages, with a heartbeat that is never late.

    python examples/scheduler.py --workers 2 --pages 200

Prints what was found, and how long the heartbeat waited at the most behind everything else.
"""

import argparse
import hashlib

import netpoll
from netpoll.sched import sleep, timeout, wait_percentile_ns


def digest(page: int) -> int:
    """The part that computes: on a free-threaded build it runs on all workers at once."""
    data = str(page).encode()
    for _ in range(200):
        data = hashlib.sha256(data).digest()
    return data[0]


async def visit(page: int, last: int, group: netpoll.TaskGroup, found: list[int]) -> None:
    """Waits as a download would, computes, and follows the two links of the page."""
    await sleep(0.001)
    found.append(digest(page))
    for link in (2 * page, 2 * page + 1):
        if link <= last:
            group.spawn(visit, link, last, group, found)


async def heartbeat(beats: list[int]) -> None:
    while True:
        await sleep(0.005)
        beats.append(len(beats))


async def crawl(scheduler: netpoll.Scheduler, pages: int) -> None:
    found: list[int] = []
    beats: list[int] = []
    pulse = scheduler.spawn(heartbeat, beats, priority=netpoll.Priority.CONTROL)
    async with timeout(60), netpoll.TaskGroup() as group:
        group.spawn(visit, 1, pages, group, found)
    pulse.cancel()
    print(f"{len(found)} pages, {len(beats)} heartbeats")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    with netpoll.Scheduler(options.workers, name="crawler") as scheduler:
        scheduler.run(crawl, scheduler, options.pages)
        for index, worker in enumerate(scheduler.stats()["workers"]):
            late_ns = wait_percentile_ns(worker["wait_ns"]["CONTROL"], 99)
            print(
                f"worker {index}: {worker['executed']} steps, {worker['stolen']} stolen, "
                f"CONTROL waited up to {late_ns / 1000:.0f} us"
            )


if __name__ == "__main__":
    main()
