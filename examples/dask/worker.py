"""A worker of a Dask cluster on netpoll's loop.

Dask's own command chooses between asyncio's loop and uvloop's; its workers are coroutines, and run
on any loop.

Usage:

    python examples/dask/worker.py tcp://SCHEDULER:8786
"""

import asyncio
import signal
import sys

from distributed import Worker

import netpoll


async def work(scheduler: str) -> None:
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    async with Worker(scheduler, nthreads=1) as worker:
        told = asyncio.ensure_future(ends.wait())
        lost = asyncio.ensure_future(worker.finished())
        await asyncio.wait({told, lost}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()


if __name__ == "__main__":
    netpoll.run(work(sys.argv[1]))
