"""The terminal: a progress bar while it runs, tables and notes at the end (rich)."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table as RichTable
from rich.text import Text

from netpoll.bench.blocks import Figure, Line, Table
from netpoll.bench.document import problems
from netpoll.bench.environment import sentences
from netpoll.bench.records import Document
from netpoll.bench.registry import kind_of
from netpoll.bench.rounds import Progress

__all__ = ["ProgressBar", "show"]

WIDE_COLUMNS = 118  # below, the columns that are least asked for are left out

STYLES = {"good": "green", "bad": "red", "key": "bold", "best": "bold green", "": ""}


class ProgressBar:
    """Shows steps. It draws only between measurements: a bar that moves takes CPU from them."""

    def __init__(self, console: Console, total: int):
        self.console = console
        self.group = ""
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[text]}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, text="")

    def __call__(self, progress: Progress) -> None:
        group = progress.group
        if not self.console.is_terminal and group != self.group:
            self.console.print(f"{group} …", highlight=False)
        self.group = group
        self.bar.update(self.task, completed=progress.done, description=group, text=progress.text)
        self.bar.refresh()

    def __enter__(self) -> ProgressBar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def _head(line: Line) -> Text:
    style = "bold" if line.own else "dim" if line.faint else ""
    text = Text(" " + line.head, style=style)
    if line.disturbed:
        text.append(" !", style="yellow")
    return text


def _figure(figure: Figure) -> Text:
    text = Text(figure.text, style=STYLES[figure.tone] if figure.text != "–" else "dim")
    if figure.sub:
        text.append(" " + figure.sub, style="dim")
    return text


def drawn(table: Table, wide: bool) -> RichTable:
    """A table as rich draws it."""
    first, *others = table.head
    result = RichTable(box=box.SIMPLE_HEAD, padding=(0, int(wide), 0, 0), pad_edge=False)
    result.add_column(first, no_wrap=True)
    for title in others:
        result.add_column(title, justify="right", no_wrap=True)
    for group in table.groups:
        if group.title:
            result.add_row(Text(group.title, style="cyan"))
        for line in group.lines:
            figures = [_figure(figure) for figure in line.figures]
            result.add_row(_head(line), *(figures or [Text("failed" if line.failure else "–")]))
    return result


def show(console: Console, document: Document) -> None:
    """The tables of any document, what one has to know to read them, what was skipped or failed."""
    wide = console.width >= WIDE_COLUMNS
    kind = kind_of(document)
    console.print()
    for table in kind.tables(document, wide):
        if table.title:
            console.print(Text(" " + table.title, style="bold"))
        console.print(drawn(table, wide))
    for line in sentences(document["environment"]) + kind.notes(document, wide):
        console.print(Text(line, style="dim"))
    for line in problems(document):
        console.print(Text(line, style="yellow"))
