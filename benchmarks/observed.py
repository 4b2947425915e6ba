"""What it costs to be looked at: CPU time of an echo server, alone and watched.

    python benchmarks/observed.py [--rounds 10] [--messages 200000]

Each arm is a process of its own that answers so many messages over sixteen connections; the arms
take turns, and the medians are compared. `off` stands twice: the second one says what a difference
is worth. `top` is looked at once a second through its window, `scraped` as often by Prometheus'
client, where that is installed. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import netpoll

ARMS = ("off", "off again", "top", "scraped")
CONNECTIONS_COUNT = 16
LOOK_S = 1.0
MESSAGE = b"x" * 1024


def serve(arm: str) -> None:
    """One arm's process: the port, then at the end of its input its CPU time."""

    def echo(conn: netpoll.Connection) -> None:
        conn.forward(conn.lease())

    with netpoll.Server(echo, "127.0.0.1", 0) as server:
        if arm == "scraped":
            begin_scraping(server)
        began_s = time.process_time()
        print(server.port, flush=True)
        sys.stdin.readline()
        print(time.process_time() - began_s, flush=True)


def begin_scraping(server: netpoll.Server) -> None:
    import prometheus_client

    from netpoll import telemetry

    telemetry.PrometheusCollector(server)

    def scrape() -> None:
        while True:
            time.sleep(LOOK_S)
            prometheus_client.generate_latest()

    threading.Thread(target=scrape, daemon=True).start()


def look(pid: int, ended: threading.Event) -> None:
    from netpoll._telemetry.look import Watched

    watched = Watched(pid)
    while not ended.wait(LOOK_S):
        watched.readings()
    watched.close()


def measure(arm: str, messages: int) -> float:
    """Seconds of CPU time of the server."""
    environ = os.environ | {"NETPOLL_TOP": "1" if arm == "top" else "0"}
    command = [sys.executable, __file__, "--serve", arm]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        ended = threading.Event()
        looking = threading.Thread(target=look, args=(process.pid, ended))
        if arm == "top":
            looking.start()
        talk(port, messages)
        ended.set()
        if arm == "top":
            looking.join()
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())


def talk(port: int, messages: int) -> None:
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_COUNT)]
    for _ in range(messages // CONNECTIONS_COUNT):
        for sock in socks:
            sock.sendall(MESSAGE)
        for sock in socks:
            left = len(MESSAGE)
            while left:
                left -= len(sock.recv(left))
    for sock in socks:
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--serve", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return serve(options.serve)
    has_client = importlib.util.find_spec("prometheus_client") is not None
    arms = [arm for arm in ARMS if arm != "scraped" or has_client]
    taken: dict[str, list[float]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        for number in range(options.rounds):
            for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
                taken[arm].append(measure(arm, options.messages))
    base = statistics.median(taken["off"])
    for arm in arms:
        median = statistics.median(taken[arm])
        per_message = median / options.messages * 1e6
        print(f"{arm:10} {per_message:8.2f} us a message {median / base - 1:+8.1%}")
    return None


if __name__ == "__main__":
    main()
