"""A kind is one file: a new one is found, run, shown, written, read again, and no other edited."""

import json
import subprocess
import sys
from collections.abc import Iterator
from math import comb
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import cli, kinds
from netpoll.bench.kind import Kind
from netpoll.bench.registry import all_kinds
from netpoll.bench.verdicts import LEVEL

# Two arms that are programs; what is measured is how much CPU one connection costs them.
TOY = '''
import contextlib
import socket
from dataclasses import dataclass

from netpoll.bench.arguments import number_in
from netpoll.bench.arms import CommandArm
from netpoll.bench.blocks import Bar, Bars, Column, Figure, Group, Heading, Table, line_of, number
from netpoll.bench.kind import Kind, measured
from netpoll.bench.process import Program, check_commands
from netpoll.bench.rounds import Plan
from netpoll.bench.stats import Spread

SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        client, _ = listener.accept()
        with client:
            for _ in range(int(sys.argv[2])):
                hash(client)
            client.sendall(b"hello")
"""
COLUMN = Column("us", lambda row: Figure(number(row["us"]["median"]), tone="key"))


def arm(name, loops):
    command = ("{python}", "-c", SERVER, "{port}", str(loops))
    return CommandArm(name, "program", f"greets after {loops} loops", command=command)


@dataclass(frozen=True, kw_only=True)
class ToyPlan(Plan):
    greetings: int

    @property
    def measurement_s(self):
        return 0.2


class Toy(Kind):
    name = "toy"
    help = "greetings of toys"
    description = "Measures what a greeting costs."
    title = "Toys that greet"
    method = "Each toy greets.\\n\\nNothing else happens."
    arms = {
        "brisk": arm("brisk", 10),
        "idle-talk": arm("idle-talk", 200_000),
        "broken": CommandArm("broken", "program", "", command=("{python}", "-c", "1/0")),
        "absent": CommandArm("absent", "program", "", command=("no-such-program", "{port}")),
    }
    default_arms = tuple(arms)
    rounds = 2

    def add_options(self, parser):
        parser.add_argument("--greetings", type=number_in(1, 1000), default=5, metavar="N")

    def check(self, arms):
        return check_commands(self.arms[name] for name in arms)

    def plan(self, options, terms):
        return ToyPlan(**vars(terms), greetings=options.greetings)

    def size(self, plan):
        return f"{plan.greetings} greetings"

    @contextlib.contextmanager
    def measuring(self, plan, watch):
        def measure(name, number):
            with Program(self.arms[name], cpu=plan.pinning.server_cpu) as program:
                before = program.cpu_time()
                for _ in range(plan.greetings):
                    with socket.create_connection(program.address) as client:
                        assert client.recv(5) == b"hello"
                return (program.cpu_time() - before).total_ns / plan.greetings / 1e3

        yield measure

    def rows(self, run):
        rows = []
        for name in run.plan.arms:
            us = run.samples.get(name, {})
            row = {"arm": name, "mode": "-", "fault": run.faults.get(name), "rounds": len(us)}
            rows.append(row | ({"us": Spread.of(us.values()).as_dict()} if us else {}))
        return rows

    def tables(self, document, wide):
        lines = [line_of(row, [COLUMN]) for row in document["rows"]]
        return [Table(["toy", COLUMN.title], [Group("all toys", lines)], "Greetings")]

    def notes(self, document, wide):
        return ["Toys are not tools."]

    def section(self, document):
        bars = [Bar(row["arm"], (row["us"]["median"],)) for row in measured(document)]
        return [Heading("Figures"), *self.tables(document, True), Bars("toys", "us", bars)]


KIND = Toy()
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The file of a kind, in a folder that belongs to the package of kinds for a while."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
    yield
    sys.modules.pop("netpoll.bench.kinds.toy", None)
    vars(kinds).pop("toy", None)


@pytest.mark.usefixtures("toy")
def test_a_new_kind_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    assert "greetings of toys" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["toy", "--help"])
    text = capsys.readouterr().out
    for words in ("--greetings N", "--arms A,B", "brisk, idle-talk", "netpoll-bench-toy.json"):
        assert words in text


@pytest.mark.usefixtures("toy")
def test_a_new_kind_runs_and_has_its_table_its_json_and_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_path, html_path = tmp_path / "toy.json", tmp_path / "toy.html"
    assert cli.main(["toy", "--json", str(json_path), "--html", str(html_path)]) == 1
    text = capsys.readouterr().out
    for words in (
        "skipped: absent: there is no program 'no-such-program' here.",
        "5 greetings, 2 rounds.",
        "Greetings",
        "all toys",
        "Toys are not tools.",
        "failed: broken: it ended with exit code 1: ZeroDivisionError: division by zero.",
    ):
        assert words in text
    document = json.loads(json_path.read_text())
    assert document["schema"] == "netpoll.bench.toy/1"
    assert document["settings"] == {"rounds": 2}
    assert document["arms"]["absent"]["skipped"]
    rows = {row["arm"]: row for row in document["rows"]}
    assert set(rows) == {"brisk", "idle-talk", "broken"}
    assert rows["brisk"]["rounds"] == 2
    assert rows["idle-talk"]["us"]["median"] > 3 * rows["brisk"]["us"]["median"]
    page = html_path.read_text()
    for words in ("<h1>Toys that greet</h1>", "<p>Nothing else happens.</p>", 'id="toys"'):
        assert words in page
    assert cli.main(["show", str(json_path)]) == 0
    assert "all toys" in capsys.readouterr().out


def test_without_its_file_a_kind_is_unknown(tmp_path: Path) -> None:
    saved = tmp_path / "toy.json"
    saved.write_text(json.dumps({"schema": "netpoll.bench.toy/1"}))
    assert "toy" not in all_kinds()
    assert cli.main(["show", str(saved)]) == 2


# ---- what holds for every kind ----------------------------------------------------------------


@pytest.mark.parametrize("kind", all_kinds().values(), ids=lambda kind: kind.name)
def test_a_kind_is_complete(kind: Kind) -> None:
    for words in (kind.name, kind.help, kind.description, kind.title, kind.method):
        assert words
    assert set(kind.default_arms) | set(kind.peers) <= set(kind.arms)
    assert not set(kind.default_arms) & set(kind.peers)
    assert kind.quick_rounds <= kind.rounds
    # So many rounds can tell, when a run is compared with another.
    assert 2 / comb(2 * kind.rounds, kind.rounds) <= LEVEL


def test_no_two_kinds_own_a_document() -> None:
    found = all_kinds().values()
    for kind in found:
        document = {"schema": kind.full_schema, "settings": {"work": kind.name}}
        assert [other.name for other in found if other.owns(document)] == [kind.name]


def test_no_kind_needs_more_than_netpoll_to_be_described() -> None:
    """`--help` works without the extra; and the child of an arm, which imports its kind, does not
    share its memory with what draws tables and pages."""
    code = (
        "import sys; from netpoll.bench.registry import all_kinds; all_kinds(); "
        "print(sorted({'rich', 'plotly', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
