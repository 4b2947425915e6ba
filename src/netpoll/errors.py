"""Exceptions that are netpoll's own. Everything else raises what asyncio raises."""

__all__ = ["BackendUnavailableError", "PoolExhaustedError"]


class BackendUnavailableError(OSError):
    """The backend that was asked for by name cannot be had here.

    `errno` is what the kernel answered, the message says why and what to do about it.
    """


class PoolExhaustedError(OSError):
    """No block of a BufferPool is free: all of them are being filled or sent. errno is ENOBUFS.

    Backpressure rather than a failure: blocks come back as sends end.
    """
