"""A key-value store that speaks lines, on TCP or a Unix socket, with an orderly end.

    python examples/line_server.py --port 8888        (or --unix /run/user/1000/store.sock)
    printf 'SET a 1\\nGET a\\nSTATS\\n' | nc -N 127.0.0.1 8888

SIGTERM and Ctrl-C stop the listener, let the requests under way finish, and end the process.
"""

import argparse
import asyncio
import signal
from collections.abc import Callable

import netpoll

SHUTDOWN_S = 5.0


class Store:
    """SET key value | GET key | DEL key | STATS; one line each, answered in order."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.connections: set[asyncio.Task[None]] = set()
        self.verbs: dict[str, Callable[..., str]] = {
            "SET": self.set_value,
            "GET": lambda key: self.values.get(key, "-"),
            "DEL": lambda key: "+" if self.values.pop(key, None) is not None else "-",
            "STATS": self.stats,
        }

    def set_value(self, key: str, value: str) -> str:
        self.values[key] = value
        return "+"

    def stats(self) -> str:
        """The loop's own counters: turns of the loop, system calls, bytes."""
        counters = asyncio.get_running_loop().stats()
        return " ".join(f"{name}={counters[name]}" for name in ("turns", "enters", "completions"))

    def answer(self, line: bytes) -> str:
        verb, *arguments = line.decode(errors="replace").strip().split(maxsplit=2) or [""]
        try:
            return self.verbs[verb.upper()](*arguments)
        except KeyError:
            return f"! unknown verb {verb!r}"
        except TypeError:
            return f"! wrong number of arguments for {verb.upper()}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            async for line in reader:
                writer.write(self.answer(line).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # gone, or a line beyond the reader's limit
        finally:
            self.connections.discard(task)
            writer.close()


async def main(host: str, port: int, unix: str | None) -> None:
    loop = asyncio.get_running_loop()
    store = Store()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if unix:
        server = await asyncio.start_unix_server(store.serve, unix)
        where = unix
    else:
        server = await asyncio.start_server(store.serve, host, port)
        where = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    print(f"storing on {where} with {loop.backend}", flush=True)
    await stop.wait()
    server.close()
    if store.connections:
        _, late = await asyncio.wait(store.connections, timeout=SHUTDOWN_S)
        for task in late:
            task.cancel()
    print(f"stopped with {len(store.values)} values", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead")
    parser.add_argument("--backend", default="auto", choices=["auto", "uring", "epoll"])
    options = parser.parse_args()
    netpoll.run(main(options.host, options.port, options.unix), backend=options.backend)
