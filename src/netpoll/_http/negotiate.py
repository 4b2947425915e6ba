"""Which content coding an answer gets: Accept-Encoding (RFC 9110 12.5.3)."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["best_coding"]

# Values of Accept-Encoding that are remembered: browsers have a handful.
VALUES_MAX_COUNT = 256


@lru_cache(maxsize=VALUES_MAX_COUNT)
def best_coding(accepted: str | None, offered: tuple[str, ...]) -> str | None:
    """The coding that the client likes best, the first of the offered ones among equals; None: as
    it is. Without the field, and with one that cannot be read, nothing is encoded."""
    if not accepted:
        return None
    weights = weights_of(accepted)
    rest = weights.get("*", 0.0)
    best, best_weight = None, 0.0
    for coding in offered:
        weight = weights.get(coding, rest)
        if weight > best_weight:
            best, best_weight = coding, weight
    return best if best_weight >= weights.get("identity", 0.0) else None


def weights_of(accepted: str) -> dict[str, float]:
    """Coding in lower case -> its weight. An element that cannot be read is not there."""
    weights: dict[str, float] = {}
    for element in accepted.split(","):
        coding, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = weight_of(value.strip())
        if coding:
            weights["gzip" if coding == "x-gzip" else coding] = weight
    return weights


def weight_of(text: str) -> float:
    """qvalue of RFC 9110 12.4.2: 0 to 1, three digits behind the point at most; else 0."""
    whole, _, digits = text.partition(".")
    is_one = whole == "1" and not digits.strip("0")
    is_less = whole == "0" and (not digits or digits.isdecimal())
    return float(text) if text.isascii() and len(digits) <= 3 and (is_one or is_less) else 0.0
