"""Types of http/forwarded.pyx."""

from netpoll._native.server.networks import Networks

class Forwarded:
    def __init__(self, networks: Networks) -> None: ...
