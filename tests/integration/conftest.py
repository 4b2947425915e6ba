"""Servers and certificates for the integration tests; nothing here runs without --integration."""

import contextlib
import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import servers

# What is forgotten shows when it is collected; then these two make it a failure.
STRICT = ("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for text in STRICT:
                item.add_marker(pytest.mark.filterwarnings(text))


@dataclasses.dataclass(frozen=True)
class Certificates:
    """A certificate authority of our own, and one certificate for 127.0.0.1 and localhost."""

    ca: Path
    cert: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    trustme: Any = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(files.cert), append=True)
    issued.private_key_pem.write_to_path(str(files.key))
    return files


# ---- servers ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[servers.Postgres]:
    files = ((certificates.cert, "server.crt"), (certificates.key, "server.key"))
    paths = {"ssl_cert_file": "{folder}/server.crt", "ssl_key_file": "{folder}/server.key"}
    with contextlib.ExitStack() as stack:
        try:
            server = servers.postgres("netpoll", files, ssl="on", max_connections=60, **paths)
            started = stack.enter_context(server)
        except servers.NotInstalledError as error:
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Redis]:
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(servers.redis())
        except servers.NotInstalledError as error:
            pytest.skip(str(error))
        yield started
