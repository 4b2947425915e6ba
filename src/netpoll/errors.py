"""Exceptions that are netpoll's own. Everything else raises what asyncio raises."""

__all__ = ["BackendUnavailableError"]


class BackendUnavailableError(OSError):
    """The backend that was asked for by name cannot be had here.

    `errno` is what the kernel answered, the message says why and what to do about it.
    """
