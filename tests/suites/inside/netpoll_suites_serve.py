"""`python -m netpoll_suites_serve app.module:app PORT [CERTIFICATE KEY]`: an application on
netpoll.http.Server, until SIGTERM; on the backend that NETPOLL_SUITES_LOOP names.
"""

import importlib
import os
import signal
import ssl
import sys

ENDS = {signal.SIGTERM, signal.SIGINT}


def main(place: str, port: str, *certificate: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # of the server's threads, too
    sys.path.insert(0, os.getcwd())
    from netpoll import http

    module, _, name = place.partition(":")
    app = getattr(importlib.import_module(module), name)
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    backend = os.environ["NETPOLL_SUITES_LOOP"]
    with http.Server(app, "127.0.0.1", int(port), ssl=context, backend=backend) as server:
        signal.sigwait(ENDS)
        server.close(1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
