"""gunicorn's request files, all of them: the valid ones are read as gunicorn reads them, the others
are refused. Each exception has its line of an RFC.

Many of the valid ones are HTTP/1.1 without a Host, which RFC 9112 3.2 tells a server to refuse.
They are, and then they are read once more with a Host put in.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from . import gunicorn_requests
from .requests import Outcome, read

VALID_COUNT, INVALID_COUNT = 62, 81

# Valid to gunicorn, some with options that loosen it: the fault that we find, and its line.
REFUSED = {
    "005": ("TARGET", "RFC 9112 3.2: no form of a target has a fragment"),
    "025": ("CODING", "RFC 9112 6.3: a first line `gzip` does not end in chunked"),
    "025_line": ("CODING_UNKNOWN", "RFC 9112 6.1: 501 for a coding that is not known"),
    "028": ("NAME_SPACE", "RFC 9112 5.1: 400 for white space before the colon"),
    "029": ("CODING", "RFC 9112 6.3, and RFC 9112 7.1 has no `identity` any more"),
    "030": ("CODING", "RFC 9112 6.3, and RFC 9112 7.1 has no `identity` any more"),
    "compat_obs_fold": ("FOLD", "RFC 9112 5.2: a server must refuse or replace obs-fold"),
    "compat_obs_fold_huge": ("FOLD", "RFC 9112 5.2: a server must refuse or replace obs-fold"),
    "pp_01": ("VERSION", "the PROXY protocol is no HTTP: it is read before, where it is asked for"),
    "pp_02": ("VERSION", "the PROXY protocol is no HTTP: it is read before, where it is asked for"),
    "pp_04": ("EMPTY_LINE", "the PROXY protocol likewise (version 2)"),
    "pp_05": ("EMPTY_LINE", "the PROXY protocol likewise (version 2)"),
    "rfc9112_smuggle_gzip_chunked_01": ("CODING_UNKNOWN", "RFC 9112 6.1: 501"),
    "rfc9112_smuggle_te_identity_chunked_01": ("CODING_UNKNOWN", "RFC 9112 6.1: 501"),
    "rfc9112_target_absolute_userinfo_01": (
        "TARGET_AUTHORITY",
        "RFC 9110 4.2.4: user information from an untrusted source is an error",
    ),
}

# Valid to gunicorn, which takes the end of the stream for the end of a body.
CUT_OFF = {"099": "RFC 9112 8: a body shorter than its Content-Length is incomplete"}

# Read here as well; gunicorn was told to change what it reads.
CHANGED = {
    "031compat": "casefold_http_method: RFC 9110 9.1 says that methods are case-sensitive",
    "040_compat": "header_map=dangerous: names with underscores are the application's interface's",
}

# Not valid to gunicorn, fine here.
ACCEPTED = {
    "003c": "RFC 9110 9.1: a method is any token, and case-sensitive",
    "019": "X-Forwarded-*: whom to believe is the server's to decide, not the parser's",
    "040": "RFC 9110 5.1: an underscore is a token's; WSGI drops such names",
    "chunked_07": "RFC 9110 5.1: an underscore is a token's; WSGI drops such names",
    "041": "RFC 9110 5.3: a doubled Content-Type is the sender's fault and frames nothing",
}

# Refused with the limits that gunicorn was given, or that are its defaults: of a field there, of
# the whole head here (RFC 6585 5).
LIMITS = {
    "006": {"line_max_bytes": 4094},
    "007": {"head_max_bytes": 8190},
    "008": {"head_max_bytes": 8190},
    "010": {"head_max_bytes": 24},
    "011": {"fields_max_count": 2},
    "012": {"head_max_bytes": 98},
    "017": {"head_max_bytes": 8190},
    "limit_header_default_01": {"head_max_bytes": 8190},
}

# Not valid because the stream ends too soon.
INCOMPLETE = {"001", "rfc9112_chunked_missing_final_crlf_01"}


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    reason = gunicorn_requests.fetch()
    if reason is not None:
        pytest.skip(reason)


def with_host(data: bytes) -> bytes:
    return re.sub(rb"( HTTP/1\.1\r\n)", rb"\1Host: a\r\n", data)


def read_every_way(data: bytes, **limits: int) -> Outcome:
    """The same, however the bytes come."""
    outcome = read(data, **limits)
    for step in (1, 7, 100):
        assert read(data, step, **limits) == outcome
    return outcome


def judge(path: Path, **limits: int) -> tuple[Outcome, bool]:
    """What becomes of a file, and whether a Host was put into it."""
    data = gunicorn_requests.decode(path.read_bytes())
    outcome = read_every_way(data, **limits)
    if outcome.fault_name == "HOST_MISSING":
        return read_every_way(with_host(data), **limits), True
    return outcome, False


def check_valid(path: Path) -> None:
    outcome, has_new_host = judge(path)
    if path.stem in REFUSED:
        assert outcome.fault_name == REFUSED[path.stem][0]
        return
    assert outcome.fault is None, outcome.fault
    wanted = gunicorn_requests.expectations(path.with_suffix(".py"))
    assert len(outcome.messages) == len(wanted)
    if path.stem in CHANGED:
        return
    for message, expected in zip(outcome.messages, wanted, strict=True):
        head = message.head
        assert message.is_whole == (path.stem not in CUT_OFF)
        assert head["method"].decode() == expected["method"]
        assert head["target"].decode("latin-1") == expected["uri"]
        assert head["minor"] == expected["version"][1]
        fields = [
            (name.decode().upper(), value.decode("latin-1"))
            for name, value in head["fields"][has_new_host and head["minor"] == 1 :]
            if b"_" not in name  # gunicorn drops these
        ]
        assert fields == expected["headers"]
        assert message.body == (expected["body"] or b"")


def check_invalid(path: Path) -> None:
    outcome, _ = judge(path, **LIMITS.get(path.stem, {}))
    if path.stem in ACCEPTED:
        assert outcome.fault is None
        assert all(message.is_whole for message in outcome.messages)
    elif path.stem in INCOMPLETE:
        assert outcome.fault is None
        assert not any(message.is_whole for message in outcome.messages)
    else:
        assert outcome.fault is not None
        assert 400 <= outcome.fault[1] <= 505


@pytest.mark.parametrize(
    ("kind", "count", "check"),
    [("valid", VALID_COUNT, check_valid), ("invalid", INVALID_COUNT, check_invalid)],
)
def test_all_files(kind: str, count: int, check: Callable[[Path], None]) -> None:
    paths = gunicorn_requests.files(kind)
    assert len(paths) == count
    wrong = []
    for path in paths:
        try:
            check(path)
        except AssertionError as error:
            wrong.append(f"{kind}/{path.name}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_no_exception_is_left_over() -> None:
    valid = {path.stem for path in gunicorn_requests.files("valid")}
    invalid = {path.stem for path in gunicorn_requests.files("invalid")}
    assert set(REFUSED) | set(CUT_OFF) | set(CHANGED) <= valid
    assert set(ACCEPTED) | set(LIMITS) | INCOMPLETE <= invalid
