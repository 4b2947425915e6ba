"""ASGI's extension "tls": https://asgi.readthedocs.io/en/latest/specs/tls.html, version 0.2."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from netpoll import tls as ntls
from netpoll._http.tls_facts import name_of
from tests import tls
from tests.http.conftest import Client, HttpServing
from tests.http.test_asgi import respond

Scope = dict[str, Any]


@contextlib.contextmanager
def client_of(http_serving: HttpServing, context: ssl.SSLContext) -> Iterator[Client]:
    sock = context.wrap_socket(http_serving.connect(), server_hostname=tls.HOST)
    client = Client(sock)
    try:
        yield client
    finally:
        client.close()


def der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_a_scope_says_of_tls(http_serving: HttpServing, version: ssl.TLSVersion) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"ok")

    http_serving(app, lifespan="off", ssl=tls.server_context())
    with client_of(http_serving, tls.client_context(version=version)) as client:
        for _ in range(2):
            assert client.ask().body == b"ok"
        sock: Any = client.sock
        name = sock.cipher()[0]
        known = {one["name"]: one["id"] for one in sock.context.get_ciphers()}
        shown = sock.getpeercert(True)
    facts = scopes[0]["extensions"]["tls"]
    if ntls.engine()[0] == "native":
        assert der(facts.pop("server_cert")) == shown
    else:
        assert facts.pop("server_cert") is None
    assert facts == {
        "client_cert_chain": (),
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": int(version),
        "cipher_suite": known[name] & 0xFFFF,
    }
    # What an application does to its scope is not seen in the next one.
    assert "server_cert" in scopes[1]["extensions"]["tls"]


def test_the_certificate_of_a_client(http_serving: HttpServing) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"ok")

    http_serving(app, lifespan="off", ssl=tls.server_context(ask_client=True))
    with client_of(http_serving, tls.client_context(certificate_of=tls.OTHER)) as client:
        assert client.ask().body == b"ok"
    facts = scopes[0]["extensions"]["tls"]
    certificate = tls.certificate(tls.OTHER).cert_chain_pems[0].bytes().decode()
    assert der(facts["client_cert_chain"][0]) == der(certificate)
    assert facts["client_cert_name"].endswith(f",O=trustme v{tls.trustme.__version__}")
    assert facts["client_cert_error"] is None


def test_the_scope_of_a_websocket_has_it(http_serving: HttpServing) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.close"})

    http_serving(app, lifespan="off", ssl=tls.server_context())
    with client_of(http_serving, tls.client_context()) as client:
        answer = client.ask(
            "/",
            Connection="upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
        )
        assert answer.status == 403
    assert set(scopes[0]["extensions"]) == {"websocket.http.response", "tls"}


def test_without_tls_there_is_none(http_serving: HttpServing) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"ok")

    http_serving(app, lifespan="off")
    http_serving.client().ask()
    assert "tls" not in scopes[0]["extensions"]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        (
            ((("countryName", "DE"),), (("organizationName", "A, B"),), (("commonName", "x"),)),
            "CN=x,O=A\\, B,C=DE",
        ),
        (((("userId", "u"), ("commonName", "x")),), "UID=u+CN=x"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
        (((("commonName", '#"+,;<>\\'),),), 'CN=\\#\\"\\+\\,\\;\\<\\>\\\\'),
        (((("commonName", " a b "),),), "CN=\\ a b\\ "),
        (((("commonName", " "),),), "CN=\\ "),
        (((("commonName", "a\0b"),),), "CN=a\\00b"),
        (((("commonName", "K\u00f6nig"),),), "CN=K\u00f6nig"),
    ],
)
def test_names_of_certificates(subject: Any, name: str) -> None:
    """RFC 4514."""
    assert name_of(subject) == name
