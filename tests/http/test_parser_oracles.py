"""Generated requests and their mutations: what we read, llhttp (httptools) and h11 read as well.

judge.py compares. 2000 streams in every run; at_length.py has the long form.
"""

import importlib.util
from collections import Counter
from collections.abc import Callable

import pytest

from .generator import CHUNKED, FIELDS, METHODS, TARGETS, good_request, mutate, stream
from .judge import LOOSER, READERS, check
from .requests import read

STREAMS_COUNT = 2000
MODULES = {"llhttp": "httptools", "h11": "h11"}


def missing(name: str) -> bool:
    return importlib.util.find_spec(MODULES[name]) is None


@pytest.fixture(params=sorted(READERS))
def oracle(request: pytest.FixtureRequest) -> str:
    if missing(request.param):
        pytest.skip(f"{MODULES[request.param]} is not installed")
    return str(request.param)


def test_generated_streams(oracle: str) -> None:
    reasons = Counter(check(oracle, stream(seed)) for seed in range(STREAMS_COUNT))
    assert reasons[None] > 0.5 * STREAMS_COUNT, "most streams have to be read by both"
    assert any(reason and reason.startswith("stricter") for reason in reasons)


def test_no_reason_fits_every_refusal() -> None:
    """A reason is a beginning; an empty one would forgive all."""
    assert all(len(beginning) > 10 for reasons in LOOSER.values() for beginning in reasons)


def test_most_streams_are_read() -> None:
    """Else the comparison would be one of refusals."""
    outcomes = [read(stream(seed)) for seed in range(1000)]
    assert sum(outcome.fault is None for outcome in outcomes) > 300
    assert sum(len(outcome.messages) for outcome in outcomes) > 800


def hypothesis_check(oracle: str) -> Callable[[], None]:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    token = st.sampled_from([*METHODS[0], *METHODS[1]])
    target = st.sampled_from(TARGETS[0]) | st.binary(min_size=1, max_size=20).map(b"/".__add__)
    line = st.sampled_from([*FIELDS[0], *FIELDS[1]])
    free = st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=12)).map(
        lambda pair: pair[0] + b": " + pair[1] + b"\r\n"
    )
    body = st.sampled_from([b"\r\n", *CHUNKED]) | st.binary(max_size=6)

    some_lines = st.lists(line | free, max_size=4)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(token, target, some_lines, body, st.binary(max_size=30), st.randoms())
    def run(method, target, lines, body, rest, rng):  # type: ignore[no-untyped-def]
        data = method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + b"".join(lines) + body + rest
        check(oracle, good_request(rng) + data + b"\r\n\r\n")
        check(oracle, mutate(rng, data) + b"\r\n\r\n")

    return run


def test_any_bytes(oracle: str) -> None:
    if importlib.util.find_spec("hypothesis") is None:
        pytest.skip("hypothesis is not installed")
    hypothesis_check(oracle)()
