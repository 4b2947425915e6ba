"""Conditional requests and ranges: RFC 9110, 13 and 14."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import NamedTuple

__all__ = ["RANGES_MAX_COUNT", "Validators", "date_of", "ranges_of", "second_of", "status_of"]

# More of them in one request are an attack on the server, or on its disk: it gets all of the file.
RANGES_MAX_COUNT = 16

ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
RANGE = re.compile(r"(\d{0,18})-(\d{0,18})")
# RFC 9110 5.6.7: IMF-fixdate, and the two forms that are obsolete, which must be read: those of
# RFC 850 and of asctime().
CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
DATES = [
    re.compile(form.replace("CLOCK", CLOCK))
    for form in (
        r"[A-Z][a-z]{2}, (?P<day>\d\d) (?P<month>\w{3}) (?P<year>\d{4}) CLOCK GMT",
        r"[A-Z][a-z]{5,8}, (?P<day>\d\d)-(?P<month>\w{3})-(?P<year>\d\d) CLOCK GMT",
        r"[A-Z][a-z]{2} (?P<month>\w{3}) (?P<day>[ \d]\d) CLOCK (?P<year>\d{4})",
    )
]
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

Header = Callable[[str], str | None]


class Validators(NamedTuple):
    """What tells a representation from an earlier one. etag: a strong one."""

    etag: str
    changed_s: int

    @property
    def is_date_strong(self) -> bool:
        """RFC 9110 8.8.2.2: it cannot have changed twice within that second any more."""
        return time.time() - self.changed_s > 1.0


def date_of(second: int) -> str:
    return formatdate(second, usegmt=True)


def second_of(text: str) -> int | None:
    """Of an HTTP date; None for what is none."""
    found = next(filter(None, (form.fullmatch(text) for form in DATES)), None)
    if found is None or found["month"] not in MONTHS:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        year = _year_of(year)
    if not year:
        return None
    day, hour, minute, second = (int(found[name]) for name in ("day", "hour", "minute", "second"))
    return calendar.timegm((year, MONTHS.index(found["month"]) + 1, day, hour, minute, second))


def _year_of(last_two: int) -> int:
    """What would be more than 50 years ahead is of the past."""
    now = time.gmtime().tm_year
    year = now - now % 100 + last_two
    return year - 100 if year > now + 50 else year


def etags_of(text: str) -> Iterator[tuple[bool, str]]:
    """(is weak, "opaque") of each in a list."""
    return ((bool(found[1]), found[2]) for found in ETAG.finditer(text))


def lists_etag(text: str, etag: str, *, weakly: bool) -> bool:
    if text.strip() == "*":
        return True
    return any(one == etag and (weakly or not is_weak) for is_weak, one in etags_of(text))


def status_of(header: Header, validators: Validators) -> int:
    """200, 304 or 412 for a GET or HEAD of something that exists, in the order of RFC 9110
    13.2.2."""
    if (wanted := header("if-match")) is not None:
        if not lists_etag(wanted, validators.etag, weakly=False):
            return 412
    elif (text := header("if-unmodified-since")) is not None:
        since = second_of(text)
        if since is not None and validators.changed_s > since:
            return 412
    if (known := header("if-none-match")) is not None:
        return 304 if lists_etag(known, validators.etag, weakly=True) else 200
    if (text := header("if-modified-since")) is not None:
        since = second_of(text)
        if since is not None and validators.changed_s <= since:
            return 304
    return 200


def ranges_of(header: Header, size: int, validators: Validators) -> list[tuple[int, int]] | None:
    """(offset, size) of each range that is asked for and there. None: all of it is to be sent.
    Empty: none of them is there (416)."""
    text = header("range")
    if text is None or not _is_same(header("if-range"), validators):
        return None
    unit, _, listed = text.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    ranges = []
    elements = [element.strip() for element in listed.split(",") if element.strip()]
    if not 0 < len(elements) <= RANGES_MAX_COUNT:
        return None
    for element in elements:
        found = RANGE.fullmatch(element)
        if found is None or not (found[1] or found[2]):
            return None
        one = _range_of(found[1], found[2], size)
        if one is None:
            return None
        if one[1]:
            ranges.append(one)
    # Overlapping ones would send more than there is.
    return ranges if sum(length for _, length in ranges) <= size else None


def _range_of(first: str, last: str, size: int) -> tuple[int, int] | None:
    """None: it is not a range. A size of 0: it is not there."""
    if not first:
        length = min(int(last), size)
        return size - length, length
    start = int(first)
    end = int(last) if last else size - 1
    if last and end < start:
        return None
    return start, max(0, min(end, size - 1) - start + 1)


def _is_same(text: str | None, validators: Validators) -> bool:
    """If-Range: the part fits to what the client has (RFC 9110 13.1.5)."""
    if text is None:
        return True
    if text.startswith(('"', "W/")):
        return text.strip() == validators.etag
    return second_of(text) == validators.changed_s and validators.is_date_strong
