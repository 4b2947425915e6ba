"""The event loop as the modules beside it see it.

netpoll.loop imports them, so they cannot import it: its class derives from this one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from netpoll import _core


class Host(_core.Loop, asyncio.SelectorEventLoop):
    """The native turn under asyncio's own code, and what the two need of each other."""

    _child_watches: set[Any]
