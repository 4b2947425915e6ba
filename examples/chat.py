"""A chat room: everybody hears what everybody says. Streams, a task per guest, time-outs.

Usage:

    python examples/chat.py --port 8888
    nc 127.0.0.1 8888          (in several terminals; the first line is your name)
"""

import argparse
import asyncio

import netpoll

NAME_TIMEOUT_S = 60.0
# A guest who does not read is asked to leave once this much waits for him.
BACKLOG_MAX_BYTES = 256 * 1024


class Room:
    """Who is here. One loop, one thread: no locks."""

    def __init__(self) -> None:
        self.writers: dict[str, asyncio.StreamWriter] = {}

    def say(self, text: str, *, but: str = "") -> None:
        line = f"{text}\n".encode()
        for name, writer in list(self.writers.items()):
            if name == but:
                continue
            if writer.transport.get_write_buffer_size() > BACKLOG_MAX_BYTES:
                writer.transport.abort()
            else:
                writer.write(line)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        try:
            name = await self.welcome(reader, writer)
            while name and (line := await reader.readline()):
                self.say(f"<{name}> {line.decode(errors='replace').rstrip()}", but=name)
        except (ConnectionError, TimeoutError, ValueError):
            pass  # gone, asleep, or a line beyond the reader's limit
        finally:
            if self.writers.pop(name, None):
                self.say(f"* {name} left")
            writer.close()

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """The guest's name once he is in the room; "" when he went or the name is taken."""
        writer.write(b"your name?\n")
        async with asyncio.timeout(NAME_TIMEOUT_S):
            name = (await reader.readline()).decode(errors="replace").strip()
        if not name or name in self.writers:
            writer.write(b"that name will not do\n")
            return ""
        self.say(f"* {name} came in")
        self.writers[name] = writer
        writer.write(f"* here: {', '.join(self.writers)}\n".encode())
        return name


async def main(host: str, port: int) -> None:
    server = await asyncio.start_server(Room().serve, host, port)
    address, bound_port = server.sockets[0].getsockname()[:2]
    backend = asyncio.get_running_loop().backend
    print(f"chatting on {address}:{bound_port} with {backend}", flush=True)
    try:
        await asyncio.get_running_loop().create_future()  # until Ctrl-C cancels this task
    finally:
        server.close()  # and no wait_closed(): it would wait for every guest to leave


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--backend", default="auto", choices=["auto", "uring", "epoll"])
    options = parser.parse_args()
    try:
        netpoll.run(main(options.host, options.port), backend=options.backend)
    except KeyboardInterrupt:
        print("stopped")
