"""The names that methods and arguments had before 0.1: programs that use them go on, and are told.

They are in no stub and on no page. docs/decisions/former-names.md says why they are kept.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any, Literal, TypedDict, TypeVar

LIMITS = {
    "max_connections": "connections_max_count",
    "backlog": "backlog_max_count",
    "max_pending_bytes": "pending_max_bytes",
    "when_full": "when_full",
    "max_unread_bytes": "unread_max_bytes",
    "max_retained_bytes": "retained_max_bytes",
    "idle_timeout_s": "idle_timeout_s",
    "handshake_timeout_s": "handshake_timeout_s",
}
# Methods of a Connection, which has the former ones itself.
CONNECTION = {
    "peek": "peek_lease",
    "next": "lease",
    "read": "take",
    "until": "lease_until",
    "readline": "take_line",
}


class FormerLimits(TypedDict, total=False):
    """Arguments of a server that are fields of its limits now."""

    max_connections: int | None
    backlog: int
    max_pending_bytes: int
    when_full: Literal["close", "raise"]
    max_unread_bytes: int
    max_retained_bytes: int
    idle_timeout_s: float | None
    handshake_timeout_s: float


_Limits = TypeVar("_Limits")


def limits_of(kind: type[_Limits], limits: _Limits | None, former: FormerLimits) -> _Limits:
    """The limits that a server was given, a dataclass. TypeError for arguments that never were."""
    if not former:
        return limits or kind()
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name in former:
        if LIMITS.get(name) not in known:
            raise TypeError(f"Server.__init__() got an unexpected keyword argument {name!r}")
    named: dict[str, Any] = {LIMITS[name]: value for name, value in former.items()}
    now = f"limits={kind.__name__}({', '.join(f'{name}=...' for name in named)})"
    if limits is not None:
        raise TypeError(f"a server has its limits in one place: {now}")
    warnings.warn(f"limits of a server are given as {now}", DeprecationWarning, stacklevel=3)
    return kind(**named)


def method_of(owner: object, name: str, names: dict[str, str]) -> Any:
    """The method that has another name now; for a __getattr__."""
    kind = type(owner).__name__
    if name not in names:
        raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)
    now = names[name]
    warnings.warn(f"{kind}.{name}() is {now}() now", DeprecationWarning, stacklevel=3)
    return getattr(owner, now)
