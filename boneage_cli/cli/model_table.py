"""Tables of models, whose names may be long: only these are broken, between their parts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len

from boneage_cli.cli.console import console, print_table

# Columns of a terminal that a name gets before columns that can be spared are left out.
_OF_NAME = 24
_NO_BREAK = "\N{NO-BREAK SPACE}"


def print_model_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], spare: int = 0
) -> None:
    """Prints a table whose first column has the names, so that it fits into the terminal.

    Args:
        title: The table's title.
        columns: The headings.
        rows: The cells.
        spare: Number of last columns that a narrow terminal need not show; a note names those that
            it does not.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    heads = [head.replace(" %", f"{_NO_BREAK}%") for head in columns]
    widths = [
        max(map(cell_len, [*head.split(" "), *(row[number] for row in cells)]))
        for number, head in enumerate(heads)
    ]
    count = len(columns)
    while count > len(columns) - spare:
        if _width([min(widths[0], _OF_NAME), *widths[1:count]]) <= console.width:
            break
        count -= 1
    widths[0] = max(1, min(widths[0], console.width - _width([0, *widths[1:count]])))
    # Headings need a second line only where there is no room for one.
    room = console.width - _width(widths[:count])
    for number, head in enumerate(heads[:count]):
        more = max(0, cell_len(head) - widths[number])
        if more <= room:
            widths[number] += more
            room -= more
    left_out = ", ".join(columns[count:])
    print_table(
        title,
        [
            textwrap.fill(head, width).replace(_NO_BREAK, " ")
            for head, width in zip(heads, widths[:count], strict=False)
        ],
        [[_broken(row[0], widths[0]), *row[1:count]] for row in cells],
        note=f"Not shown for lack of width: {left_out}" if left_out else "",
    )


def _width(widths: Sequence[int]) -> int:
    """Returns the width of a table with columns of these widths, with its lines and margins."""
    return sum(widths) + 3 * len(widths) + 1


def _broken(name: str, width: int) -> str:
    """Breaks a name into lines, after a separator where there is one."""
    lines = re.findall(rf".{{1,{width}}}$|.{{0,{width - 1}}}[-/_, ]|.{{1,{width}}}", name)
    return "\n".join(line.strip() for line in lines)
