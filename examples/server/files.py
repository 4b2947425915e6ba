"""A static file server: HTTP/1.1 GET and HEAD, the bodies by sendfile(2).

Usage:

    python examples/server/files.py DIRECTORY [--port 8000]
"""

import argparse
import mimetypes
import urllib.parse
from pathlib import Path

import netpoll

HEAD_MAX_BYTES = 16 * 1024
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, target: str) -> Path | None:
        """The file that a request names; None when there is none below the root."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(target).path).lstrip("/")
        path = (self.root / name).resolve()
        if path.is_dir():
            path /= "index.html"
        return path if path.is_relative_to(self.root) and path.is_file() else None

    async def session(self, conn: netpoll.Connection) -> None:
        while head := await conn.read_until(b"\r\n\r\n"):
            try:
                method, target, version = head.split(b"\r\n", 1)[0].decode("ascii").split()
            except ValueError:
                self.refuse(conn, 400)
                return
            path = self.find(target)
            if method not in ("GET", "HEAD"):
                self.refuse(conn, 405)
            elif path is None:
                self.refuse(conn, 404)
            else:
                with path.open("rb") as file:
                    size = path.stat().st_size
                    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                    self.say(conn, 200, size, kind)
                    if method == "GET":
                        conn.sendfile(file, 0, size)
            await conn.drain()
            if version == "HTTP/1.0" or b"connection: close" in head.lower():
                return

    def refuse(self, conn: netpoll.Connection, status: int) -> None:
        body = f"{status} {REASONS[status]}\n".encode()
        self.say(conn, status, len(body), "text/plain")
        conn.write(body)

    def say(self, conn: netpoll.Connection, status: int, size: int, kind: str) -> None:
        conn.write(
            f"HTTP/1.1 {status} {REASONS[status]}\r\n"
            f"Content-Length: {size}\r\nContent-Type: {kind}\r\n\r\n".encode()
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    netpoll.serve(
        Site(options.directory).session,
        "127.0.0.1",
        options.port,
        limits=netpoll.ServerLimits(idle_timeout_s=30, unread_max_bytes=HEAD_MAX_BYTES),
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
