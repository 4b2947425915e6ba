"""redis-py's asyncio client against a real Redis of our own, over TCP and a Unix socket."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ..servers import Redis
from ..support import pattern
from .programs import free_port

pytest.importorskip("redis")
import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

both_ways = pytest.mark.parametrize("way", ["tcp", "unix"])


@contextlib.asynccontextmanager
async def connected(server: Redis, way: str = "tcp", **options: Any) -> AsyncIterator[Any]:
    """A client with an empty database."""
    if way == "unix":
        client = redis_asyncio.Redis(unix_socket_path=str(server.path), **options)
    else:
        client = redis_asyncio.Redis(host="127.0.0.1", port=server.port, **options)
    try:
        await client.flushdb()
        yield client
    finally:
        await client.aclose()


@both_ways
async def test_values(loop: Any, redis_server: Redis, way: str) -> None:
    async with connected(redis_server, way) as client:
        for size in (0, 1, 1000, 65_536, 5_000_000):
            await client.set(f"key:{size}", pattern(size))
            assert await client.get(f"key:{size}") == pattern(size)
        digest = await client.eval(
            "return redis.sha1hex(redis.call('get', KEYS[1]))", 1, "key:5000000"
        )
        assert digest.decode() == hashlib.sha1(pattern(5_000_000)).hexdigest()
        with pytest.raises(ResponseError):
            await client.incr("key:1000")


@both_ways
async def test_pipelines(loop: Any, redis_server: Redis, way: str) -> None:
    """Thousands of commands in one go, several pipelines at once."""
    async with connected(redis_server, way) as client:

        async def run(name: str) -> None:
            pipeline = client.pipeline(transaction=False)
            for number in range(3000):
                pipeline.set(f"{name}:{number}", number)
                pipeline.get(f"{name}:{number}")
            results = await pipeline.execute()
            assert results[1::2] == [b"%d" % number for number in range(3000)]

        await asyncio.gather(*(run(f"p{number}") for number in range(8)))
        assert await client.dbsize() == 24_000

        async with client.pipeline(transaction=True) as pipeline:
            await pipeline.watch("p0:1")
            await client.set("p0:1", "changed")
            pipeline.multi()
            pipeline.set("p0:1", "mine")
            with pytest.raises(redis_asyncio.WatchError):
                await pipeline.execute()


async def test_publish_and_subscribe(loop: Any, redis_server: Redis) -> None:
    async with connected(redis_server) as client, connected(redis_server, "unix") as other:
        pubsub = other.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe("channel")
        await pubsub.psubscribe("pattern.*")
        while not (await client.pubsub_numsub("channel"))[0][1] or not await client.pubsub_numpat():
            await asyncio.sleep(0.01)
        for number in range(300):
            await client.publish("channel" if number % 2 else "pattern.x", str(number))
        got = []
        while len(got) < 300:
            message = await pubsub.get_message(timeout=10)
            if message is not None:
                got.append(int(message["data"]))
        assert got == list(range(300))
        await pubsub.aclose()


async def test_blocking_pop(loop: Any, redis_server: Redis) -> None:
    async with connected(redis_server) as client:
        waiting = asyncio.ensure_future(client.blpop("queue", timeout=30))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await client.rpush("queue", "first")
        assert await waiting == (b"queue", b"first")


@both_ways
async def test_cancelled_blocking_pop(loop: Any, redis_server: Redis, way: str) -> None:
    """No later answer comes to the wrong question, and nothing is taken for who has gone."""
    async with connected(redis_server, way) as client:
        for step in range(20):
            waiting = asyncio.ensure_future(client.blpop("queue", timeout=2))
            await asyncio.sleep(0.001 * step)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            await client.set("step", step)
            assert int(await client.get("step")) == step

        async def blocked_count() -> int:
            return int((await client.info("clients"))["blocked_clients"])

        while await blocked_count():  # until their time-out: the server does not look before
            await asyncio.sleep(0.01)
        await client.rpush("queue", "kept")
        assert await client.lrange("queue", 0, -1) == [b"kept"]


async def test_many_clients(loop: Any, redis_server: Redis) -> None:
    async with connected(redis_server, max_connections=50) as client:
        pool = redis_asyncio.BlockingConnectionPool(
            host="127.0.0.1", port=redis_server.port, max_connections=20, timeout=20
        )
        many = redis_asyncio.Redis(connection_pool=pool)

        async def count(number: int) -> None:
            for _ in range(10):
                await many.incrby("sum", number)

        await asyncio.gather(*(count(number) for number in range(100)))
        assert int(await client.get("sum")) == 10 * sum(range(100))
        await many.aclose()
        await pool.aclose()


async def test_killed_connection(loop: Any, redis_server: Redis) -> None:
    async with (
        connected(redis_server) as client,
        connected(redis_server, retry=Retry(NoBackoff(), 0)) as other,
    ):
        victim_id = await other.client_id()
        waiting = asyncio.ensure_future(other.blpop("nothing", timeout=30))
        await asyncio.sleep(0.05)
        for entry in await client.client_list():
            if entry["cmd"] == "blpop":
                await client.client_kill_filter(_id=entry["id"])
        with pytest.raises(RedisConnectionError):
            await asyncio.wait_for(waiting, 10)
        assert victim_id and await other.ping()


async def test_nobody_listens(loop: Any) -> None:
    client = redis_asyncio.Redis(host="127.0.0.1", port=free_port())
    with pytest.raises(RedisConnectionError):
        await client.ping()
    await client.aclose()
