"""What the harness says in one sentence and ends with; `str()` is the sentence."""

__all__ = ["ArmUnavailable", "ServerError", "UsageError"]


class ArmUnavailable(Exception):
    """This arm cannot run here; `str()` is the reason, one clause without a full stop."""


class ServerError(Exception):
    """A child did not start, ended early, or does not answer."""


class UsageError(Exception):
    """Options that make no sense together, or that cannot be met here."""
