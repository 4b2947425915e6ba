"""Node's own server of HTTP as a third oracle: what it hands to a program."""

import shutil

import pytest

from . import node
from .generator import stream
from .judge import Disagreement, compare
from .requests import read

STREAMS_COUNT = 2000


@pytest.mark.timeout(120)
def test_node_hands_over_the_same_requests() -> None:
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed")
    streams = [stream(seed) for seed in range(STREAMS_COUNT)]
    with node.started(path) as oracle:
        verdicts = oracle.read(streams)
    assert len(verdicts) == STREAMS_COUNT
    assert sum(len(verdict.messages) for verdict in verdicts) > STREAMS_COUNT / 2
    wrong = []
    for data, theirs in zip(streams, verdicts, strict=True):
        try:
            compare("node", read(data), theirs)
        except Disagreement as difference:
            wrong.append(f"{data!r}\n{difference}")
    assert not wrong, "\n\n".join(wrong)
