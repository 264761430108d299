"""Console output of all commands: tables, lines, warnings and errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from boneage_cli.core.prediction.predictor import Predictor


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves a closed pipe to the command, which has an exit status for it; rich takes 1."""
        raise BrokenPipeError


# Without emoji: ":m:" in a file's name is no circled letter.
console = _Console(highlight=False, soft_wrap=True, emoji=False)
error_console = _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = ""
) -> None:
    """Prints a table to standard output: first column left-aligned, others right-aligned."""
    table = Table(
        title=Text(title, style="table.title"),
        title_justify="left",
        caption=note or None,
        caption_justify="left",
        show_header=any(columns),
    )
    for position, column in enumerate(columns):
        # Long names wrap, because truncated ones could look the same.
        table.add_column(column, justify="right" if position else "left", overflow="fold")
    for row in rows:
        # As Text, since square brackets in a path are not markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints one line per field: its name, and its value in a second column."""
    for name, value in fields.items():
        console.print(f"{name:11}{value}", markup=False)


def print_aside(line: str) -> None:
    """Prints a line to standard error, apart from the results."""
    error_console.print(line, markup=False)


def print_model(predictor: Predictor) -> None:
    """Prints the description of the model to standard error."""
    print_aside(f"model: {predictor.description}")


def warn(message: str) -> None:
    """Prints a one-line warning to standard error."""
    _print_beside_bars("warning:", "yellow", message)


def fail(message: str) -> None:
    """Prints a one-line error to standard error."""
    _print_beside_bars("error:", "red", message)


def _print_beside_bars(head: str, colour: str, message: str) -> None:
    # File names may hold line breaks and codes that steer a terminal.
    shown = "".join(letter if letter.isprintable() else "?" for letter in message)
    line = Text.assemble((head, colour), " ", shown)
    tqdm: Any = getattr(sys.modules.get("tqdm"), "tqdm", None)
    # A plain print would break a progress bar. Without one, tqdm would first make its locks, which
    # a signal may interrupt in a way that hides it.
    if not getattr(tqdm, "_instances", None):
        error_console.print(line)
        return
    with tqdm.external_write_mode(file=sys.stderr):
        error_console.print(line)
