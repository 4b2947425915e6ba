"""asyncpg against a real PostgreSQL of our own, over TCP, TLS and a Unix socket."""

import asyncio
import contextlib
import hashlib
import io
from typing import Any

import pytest

from ..servers import Postgres
from ..support import pattern
from .conftest import Certificates
from .programs import free_port

asyncpg = pytest.importorskip("asyncpg")

ROUTES = ("tcp", "tls", "unix")


def route(postgres: Postgres, certificates: Certificates, name: str = "tcp") -> dict[str, Any]:
    """Arguments for asyncpg.connect."""
    common = {"user": postgres.user, "database": "postgres", "port": postgres.port}
    if name == "unix":
        return {"host": str(postgres.folder), **common}
    tls = certificates.client() if name == "tls" else False
    return {"host": "127.0.0.1", "ssl": tls, **common}


@contextlib.asynccontextmanager
async def connected(postgres: Postgres, certificates: Certificates, name: str = "tcp") -> Any:
    connection = await asyncpg.connect(**route(postgres, certificates, name))
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("way", ROUTES)
async def test_queries(loop: Any, postgres: Postgres, certificates: Certificates, way: str) -> None:
    async with connected(postgres, certificates, way) as connection:
        used = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert used == (way == "tls")
        rows = await connection.fetch("SELECT n, n * n AS square FROM generate_series(1, 5000) n")
        assert [tuple(row) for row in rows] == [(n, n * n) for n in range(1, 5001)]
        body = pattern(3_000_000)
        assert await connection.fetchval("SELECT $1::bytea", body) == body
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")
        async with connection.transaction():
            seen = [row[0] async for row in connection.cursor("SELECT generate_series(1, 900)")]
        assert seen == list(range(1, 901))


@pytest.mark.parametrize("way", ROUTES)
async def test_copy(loop: Any, postgres: Postgres, certificates: Certificates, way: str) -> None:
    """COPY in both directions, many times the size of any buffer, checked by the server too."""
    records = [(number, hashlib.sha256(b"%d" % number).hexdigest()) for number in range(60_000)]
    async with connected(postgres, certificates, way) as connection:
        await connection.execute("CREATE TEMP TABLE copied (id int, digest text)")
        await connection.copy_records_to_table("copied", records=records)
        wrong = await connection.fetchval(
            "SELECT count(*) FROM copied WHERE digest <> encode(sha256(id::text::bytea), 'hex')"
        )
        assert wrong == 0
        out = io.BytesIO()
        await connection.copy_from_query("SELECT * FROM copied ORDER BY id", output=out)
        expected = "".join(f"{number}\t{digest}\n" for number, digest in records)
        assert out.getvalue().decode() == expected


async def test_listen_notify(loop: Any, postgres: Postgres, certificates: Certificates) -> None:
    received: asyncio.Queue[str] = asyncio.Queue()
    async with (
        connected(postgres, certificates) as listener,
        connected(postgres, certificates, "unix") as speaker,
    ):
        await listener.add_listener("news", lambda *message: received.put_nowait(message[3]))
        for number in range(200):
            await speaker.execute(f"NOTIFY news, '{number}'")
        got = [await asyncio.wait_for(received.get(), 10) for _ in range(200)]
        assert got == [str(number) for number in range(200)]
        await listener.reset()


@pytest.mark.parametrize("way", ROUTES)
async def test_cancelled_queries(
    loop: Any, postgres: Postgres, certificates: Certificates, way: str
) -> None:
    """A cancelled query is cancelled in the server too, and its connection goes on."""
    async with connected(postgres, certificates, way) as connection:
        for step in range(5):
            sleeping = connection.execute("SELECT pg_sleep(30)")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(sleeping, 0.01 + 0.02 * step)
            assert await connection.fetchval("SELECT $1::int", step) == step
        active = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%'"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        )
        assert active == 0


@pytest.mark.parametrize("way", ROUTES)
async def test_pool(loop: Any, postgres: Postgres, certificates: Certificates, way: str) -> None:
    """Ten connections, 400 tasks, some of them given up half-way."""
    options = route(postgres, certificates, way)
    async with asyncpg.create_pool(min_size=2, max_size=10, **options) as pool:

        async def work(number: int) -> int:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_sleep(0.002)")
                result: int = await connection.fetchval("SELECT $1::int", number)
                return result

        tasks = [asyncio.ensure_future(work(number)) for number in range(400)]
        await asyncio.sleep(0.05)
        for task in tasks[::7]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            cancelled = isinstance(result, asyncio.CancelledError)
            assert result == number or (cancelled and number % 7 == 0), (number, result)
        assert await pool.fetchval("SELECT 1") == 1


async def test_server_ends_a_connection(
    loop: Any, postgres: Postgres, certificates: Certificates
) -> None:
    async with connected(postgres, certificates) as killer:
        victim = await asyncpg.connect(**route(postgres, certificates))
        ended = loop.create_future()
        victim.add_termination_listener(lambda _: ended.set_result(None))
        pid = victim.get_server_pid()
        waiting = asyncio.ensure_future(victim.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        assert await killer.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await waiting
        await asyncio.wait_for(ended, 10)
        assert victim.is_closed()


async def test_nobody_listens(loop: Any, certificates: Certificates) -> None:
    with pytest.raises(OSError):
        await asyncpg.connect(host="127.0.0.1", port=free_port(), user="nobody", ssl=False)
    with pytest.raises(OSError):
        await asyncpg.connect(host="/nonexistent", user="nobody")
