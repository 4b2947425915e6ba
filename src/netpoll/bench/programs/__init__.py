"""Applications and servers that `netpoll bench http` runs as programs. The harness only names them.

All of them answer what `netpoll.bench.answers` says. The applications (`asgi.py`, `wsgi.py` and
those of the frameworks) run under servers of others; the rest are servers themselves.
"""
