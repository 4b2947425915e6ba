"""One small application for each framework, all with the same paths: test_frameworks.py asks them.

Each module has `make(seen)`, which gives the application. What happens behind an answer (a
background task that ran, a client whose leaving was noticed) is added to the set `seen`. LACKS has
what the framework does not offer.
"""

import asyncio
from collections.abc import AsyncIterator

LACKS: frozenset[str] = frozenset()


async def events() -> AsyncIterator[bytes]:
    """Server-sent events."""
    for number in range(3):
        yield b"data: event %d\n\n" % number
        await asyncio.sleep(0.001)


async def endless(seen: set[str]) -> AsyncIterator[bytes]:
    """An answer that ends when its client has gone."""
    try:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.001)
    finally:
        seen.add("gone")


async def shouted(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What comes, in capitals."""
    async for part in parts:
        if part:
            yield part.upper()
