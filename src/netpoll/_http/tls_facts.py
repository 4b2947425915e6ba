"""What ASGI's extension "tls" says of a connection.

https://asgi.readthedocs.io/en/latest/specs/tls.html, version 0.2.
"""

from __future__ import annotations

import ssl
from typing import Any

VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# RFC 4514 3: the types of attributes that have a short name; others have that of OpenSSL.
SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

CERTIFICATES_MAX_COUNT = 64


class TlsFacts:
    """For the connections of one worker. What they have in common is made once."""

    def __init__(self) -> None:
        self.suites: dict[str, int] = {}
        self.certificates: dict[bytes, str] = {}

    def of(self, ssl_object: ssl.SSLObject, certificate: bytes | None) -> dict[str, Any]:
        """certificate: that of the server, in DER. Clients whose own cannot be verified have been
        turned away in the handshake, so there is never an error to tell of."""
        chain = client_chain(ssl_object)
        subject: Any = (ssl_object.getpeercert() or {}).get("subject", ())
        return {
            "server_cert": self.pem_of(certificate) if certificate is not None else None,
            "client_cert_chain": chain,
            "client_cert_name": name_of(subject) if chain else None,
            "client_cert_error": None,
            "tls_version": VERSIONS.get(ssl_object.version() or ""),
            "cipher_suite": self.suite_of(ssl_object),
        }

    def pem_of(self, certificate: bytes) -> str:
        if certificate not in self.certificates:
            if len(self.certificates) == CERTIFICATES_MAX_COUNT:
                self.certificates.clear()
            self.certificates[certificate] = ssl.DER_cert_to_PEM_cert(certificate)
        return self.certificates[certificate]

    def suite_of(self, ssl_object: ssl.SSLObject) -> int | None:
        name = (ssl_object.cipher() or ("",))[0]
        if name not in self.suites:
            known = ssl_object.context.get_ciphers()
            self.suites.update((one["name"], one["id"] & 0xFFFF) for one in known)
        return self.suites.get(name)


def client_chain(ssl_object: Any) -> tuple[str, ...]:
    """The client's certificate, and what it has sent to prove it, in PEM. ssl.SSLObject has it from
    Python 3.13 on; what it asks has had it before."""
    chain = ssl_object._sslobj.get_unverified_chain()
    return tuple(certificate.public_bytes() for certificate in chain or ())


def name_of(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A name as ssl.SSLObject.getpeercert() gives it, in the form of RFC 4514: the last part
    first."""
    return ",".join(
        "+".join(f"{SHORT_NAMES.get(kind, kind)}={escaped(value)}" for kind, value in part)
        for part in reversed(subject)
    )


def escaped(value: str) -> str:
    """RFC 4514 2.4."""
    text = "".join("\\" + char if char in '"+,;<>\\' else char for char in value)
    text = text.replace("\0", "\\00")
    if text[:1] in ("#", " "):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(value) > 1 else text
