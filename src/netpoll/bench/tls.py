"""What the TLS mode of `bench echo` needs: a certificate, and an OpenSSL for the load."""

from __future__ import annotations

import importlib.util
import ssl
from functools import cache

from netpoll.bench import _native

__all__ = ["server_context", "why_not"]


@cache
def openssl_path() -> str | None:
    """The path of the library that brings Python's OpenSSL; None where there is none."""
    import _ssl

    path = getattr(_ssl, "__file__", None)  # None: built into the interpreter
    return path if path is not None and _native.can_load_tls(path) else None


def why_not() -> str | None:
    """Why TLS cannot be measured here, one clause; None when it can."""
    if importlib.util.find_spec("trustme") is None:
        return "there is no certificate without trustme (pip install trustme)"
    if openssl_path() is None:
        return "the OpenSSL of Python's ssl module is not available to the load"
    return None


def server_context() -> ssl.SSLContext:
    """TLS 1.3 with a certificate for 127.0.0.1 that is made now."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context
