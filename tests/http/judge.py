"""Compares what we have read out of a stream of bytes with what another reader has.

Two readers that understand the same bytes in two ways are how requests are smuggled. So each
difference is one of two: we refuse what the other takes, for a reason of STRICTER; or we take what
the other refuses, for a reason of LOOSER, which has the line of the RFC that allows or asks for it.
Never do both take it and see different requests.
"""

from . import oracles
from .requests import Message, Outcome, read

# Faults that we find and the oracle does not always. The rule is in the parser's own table, with
# its section of the RFC (docs/http-strictness.md); why the oracle lets it pass is here.
STRICTER = {
    "llhttp": {
        "BARE_CR": "takes a CR alone at some places",
        "BARE_LF": "takes an LF alone as a line's end",
        "CHUNK_EXTENSION": "does not look at all of an extension",
        "CHUNK_SIZE": "counts the value of a size, not its digits",
        "CODING": "leaves codings on lines before chunked to its user",
        "CODING_OLD": "reads chunked in HTTP/1.0",
        "CODING_UNKNOWN": "leaves the other codings to its user",
        "EMPTY_LINE": "passes over any number of empty lines",
        "HOST_INVALID": "does not look at Host",
        "HOST_MISSING": "does not look at Host",
        "HOST_OTHER": "does not look at Host",
        "HOST_TWICE": "does not look at Host",
        "LENGTH": "counts to 2^64, not to 2^63",
        "TARGET": "takes fragments and bytes above 0x7f",
        "TARGET_AUTHORITY": "takes user information and any port",
        "TARGET_FORM": "does not compare the target's form with the method",
        "TRAILER_NAME": "reads framing fields in trailers as any other",
        "VERSION": "takes several spaces before the version",
        "VERSION_UNKNOWN": "takes 0.9 and 2.0",
    },
    "h11": {
        "BARE_CR": "takes a CR alone at some places",
        "BARE_LF": "takes an LF alone as a line's end",
        "CHUNK_EXTENSION": "takes anything behind the semicolon",
        "CHUNK_SIZE": "takes twenty digits",
        "CODING": "joins folded lines, also that of a coding",
        "CODING_OLD": "reads chunked in HTTP/1.0",
        "CONTROL": "refuses NUL only",
        "FOLD": "joins folded lines",
        "HOST_INVALID": "does not look into Host",
        "HOST_MISSING": "wants one in 1.1 only, not in 1.2",
        "HOST_OTHER": "does not compare Host with the target",
        "LENGTH": "takes a list of equal lengths, and twenty digits",
        "LENGTH_AND_CODING": "lets Transfer-Encoding win",
        "LENGTH_TWICE": "takes equal lengths",
        "METHOD_LONG": "has no limit for a method",
        "TARGET": "takes fragments",
        "TARGET_AUTHORITY": "does not look into the target",
        "TARGET_FORM": "does not look into the target",
        "TRAILER_NAME": "reads framing fields in trailers as any other",
        "VERSION_UNKNOWN": "takes any digits",
    },
}

# What we take and the oracle refuses: how its refusal begins, and the line that allows it.
LOOSER = {
    "llhttp": {
        "HttpParserError: Invalid HTTP version": "RFC 9110 2.5: HTTP/1.2 is to be read as 1.1",
        "HttpParserInvalidMethodError": "RFC 9110 9.1: a method is any token, not one of a list",
        "HttpParserError: Invalid character in chunk size": "RFC 9112 7.1.1: BWS before the `;`",
        "HttpParserError: Request has invalid `Transfer-Encoding`": (
            "RFC 9110 5.5: white space behind a value, a tab as well, is not part of it"
        ),
        "HttpParserError: Invalid character in chunk extensions": "RFC 9112 7.1.1: BWS",
    },
    "h11": {
        "no request line received": "RFC 9112 2.2: an empty line before a request is to be ignored",
        "illegal chunk header": "RFC 9112 7.1.1: BWS, and obs-text in a quoted value",
    },
}

# Node reads with llhttp.
STRICTER["node"] = STRICTER["llhttp"]
LOOSER["node"] = {
    "Invalid method encountered": "RFC 9110 9.1: a method is any token, not one of a list",
    "Expected space after method": "RFC 9110 9.1: likewise, of one that begins as another",
    "Invalid HTTP version": "RFC 9110 2.5: HTTP/1.2 is to be read as 1.1",
    "Invalid character in chunk size": "RFC 9112 7.1.1: BWS before the `;`",
    "Invalid character in chunk extensions": "RFC 9112 7.1.1: BWS",
    "Request has invalid `Transfer-Encoding`": "RFC 9110 5.5: white space is not of the value",
    "Invalid character in Content-Length": "RFC 9110 5.5: likewise, a tab behind the digits",
}

READERS = {"llhttp": oracles.read_llhttp, "h11": oracles.read_h11}


class Disagreement(Exception):
    """The two have understood different things."""


def plain(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Names in lower case, values without white space around them; the words of codings and the
    digits of lengths as h11 gives them."""
    result = []
    for name, value in fields:
        name, value = name.lower(), value.strip(b" \t")
        result.append((name, value.lower() if name == b"transfer-encoding" else value))
    return result


def compare_heads(ours: Message, theirs: oracles.Seen) -> None:
    head = ours.head
    if (theirs.method, theirs.target) != (head["method"], head["target"]):
        raise Disagreement(f"request lines: {head} and {theirs}")
    if plain(theirs.fields) != plain(head["fields"]):
        raise Disagreement(f"fields: {head} and {theirs}")


def compare_bodies(ours: Message, theirs: oracles.Seen, has_fault: bool) -> None:
    if ours.is_whole and (not theirs.is_whole or theirs.body != ours.body):
        raise Disagreement(f"bodies: {ours} and {theirs}")
    if theirs.is_whole and not ours.is_whole and not has_fault:
        raise Disagreement(f"ends: {ours} and {theirs}")


def goes_on(message: Message) -> bool:
    head = message.head
    return head["keep_alive"] and not head["upgrades"] and head["method"] != b"CONNECT"


def looser_reason(name: str, error: str | None) -> str | None:
    for beginning in LOOSER[name]:
        if error is not None and error.startswith(beginning):
            return f"looser: {beginning}"
    return None


def takes_it(ours: Outcome, theirs: oracles.Verdict) -> bool:
    """Whether the oracle has read the request that we refuse; it may still wait for its end."""
    if ours.messages and not ours.messages[-1].is_whole:
        return theirs.messages[len(ours.messages) - 1].is_whole
    return len(theirs.messages) > len(ours.messages)


def compare(name: str, ours: Outcome, theirs: oracles.Verdict) -> str | None:
    """The reason for which one of them refuses; None: they agree."""
    for i, message in enumerate(ours.messages):
        is_last = i == len(ours.messages) - 1
        if i >= len(theirs.messages):
            reason = looser_reason(name, theirs.error)
            if reason is None:
                raise Disagreement(f"it does not see {message}: {theirs.error}")
            return reason
        seen = theirs.messages[i]
        compare_heads(message, seen)
        if message.is_whole and not seen.is_whole and looser_reason(name, theirs.error):
            return looser_reason(name, theirs.error)
        compare_bodies(message, seen, has_fault=is_last and ours.fault is not None)
        if message.is_whole and not goes_on(message):
            if not seen.goes_on or message.head["upgrades"]:
                return None
            if name in ("llhttp", "node"):  # not a close with a tab behind it, nor a second one
                return "stricter: RFC 9112 9.3 close wins over keep-alive"
            raise Disagreement(f"it goes on after {message}")
        if message.is_whole and not seen.goes_on:
            if message.head["minor"] == 0:
                return "looser: RFC 9112 9.3 keep-alive of HTTP/1.0"
            raise Disagreement(f"it does not go on after {message}")
    if ours.fault is not None:
        if theirs.error is not None or not takes_it(ours, theirs):
            return None
        if ours.fault_name not in STRICTER[name]:
            raise Disagreement(f"it takes what we refuse: {ours.fault}; {theirs}")
        return f"stricter: {ours.fault_name}"
    if len(theirs.messages) > len(ours.messages):
        raise Disagreement(f"it sees a request more: {theirs.messages[-1]}")
    return None


def check(name: str, data: bytes) -> str | None:
    ours = read(data)
    assert read(data, 1) == ours
    try:
        return compare(name, ours, READERS[name](data))
    except Disagreement as difference:
        raise AssertionError(f"{data!r}\n{difference}") from None
