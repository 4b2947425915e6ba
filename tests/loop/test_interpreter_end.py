"""Programs that end with a loop open, and connections on it: they end in silence, as on asyncio."""

import pytest

from ..support import run_child

pytestmark = pytest.mark.control


def ends_unclosed(kind: str) -> None:
    import asyncio
    import socket

    loop = new_loop()  # type: ignore[name-defined]
    asyncio.set_event_loop(loop)  # kept until the modules are cleared
    kept = []

    async def main() -> None:
        if kind == "datagram":
            kept.append(
                await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
                )
            )
        elif kind == "child":
            kept.append(await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1))
        else:
            for sock in socket.socketpair():
                kept.append(await loop.create_connection(asyncio.Protocol, sock=sock))

    loop.run_until_complete(main())
    loop.kept = kept


@pytest.mark.parametrize("kind", ["stream", "datagram", "child"])
def test_nothing_is_said_at_the_end(backend: str, kind: str) -> None:
    done = run_child(backend, ends_unclosed, kind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
