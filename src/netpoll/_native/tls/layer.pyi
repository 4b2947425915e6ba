"""Types of tls/layer.pyx."""

import asyncio

class TlsLayer(asyncio.Protocol):
    @property
    def _app_transport(self) -> asyncio.Transport: ...
    def feed_early(self, data: bytes) -> None: ...
