"""Rows of CSV and xlsx tables, as cells of text with their line numbers."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from boneage_cli.errors import BoneageError, BoneageWarning

CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (*CSV_SUFFIXES, ".xlsx")

# An xlsx is a zip: a few kilobytes can unpack to gigabytes. Official tables are below 1 MB.
_LARGEST_TABLE = 200_000_000


def table_rows(name: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row of a table, the headings first.

    CSV may be UTF-8, UTF-16 or Windows-1252; of a workbook the first sheet is read. Cells are
    stripped and empty rows skipped.

    Args:
        name: The table's name for messages; its suffix decides between CSV and xlsx.
        content: The file's bytes.

    Raises:
        BoneageError: While iterating, if the file is too large or damaged.
    """
    if len(content) > _LARGEST_TABLE:
        raise BoneageError(f"{name}: too large for a table of labels; give the right file")
    if PurePosixPath(name).suffix.lower() == ".xlsx":
        yield from _xlsx_rows(name, content)
    else:
        yield from csv_rows(name, io.StringIO(_decode(content), newline=""))


def csv_rows(name: str, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row of a CSV table, the headings first.

    Cells are stripped and empty rows skipped. The delimiter is the one stated in a first line
    ``sep=;`` (written by Excel), else the most frequent one in the headings.

    Args:
        name: The table's name for messages.
        lines: Its lines with line ends; read lazily.

    Raises:
        BoneageError: While iterating, if it is not a valid CSV table.
    """
    source = iter(lines)
    above, first, stated = 0, "", ""
    for line in source:
        if mark := re.fullmatch(r"sep=(.)\s*", line):
            stated = mark[1]
        elif line.strip():
            first = line
            break
        above += 1
    delimiter = stated or max(",;\t", key=first.count)
    # Strict mode: otherwise an unclosed quotation mark would swallow all later rows in its cell.
    reader = csv.reader(chain([first], source), delimiter=delimiter, strict=True)
    read = 0
    try:
        for row in reader:
            cells, read = [cell.strip() for cell in row], reader.line_num
            if any(cells):
                yield above + read, cells
    except csv.Error as error:
        raise BoneageError(
            f"{name}, line {above + read + 1}: no row of a CSV table ({error}); fix its quotation "
            "marks, or save it again as CSV"
        ) from None


def check_width(where: str, cells: Sequence[str], width: int) -> None:
    """Refuses a row with more non-empty cells than headings, as caused by an unquoted comma.

    Args:
        where: The table and line, for the message.
        cells: The row's cells.
        width: The number of headings.

    Raises:
        BoneageError: The row has cells beyond the headings.
    """
    if any(cells[width:]):
        raise BoneageError(
            f"{where}: {len(cells)} cells under {width} headings; put cells that hold a comma in "
            "quotes"
        )


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _xlsx_rows(name: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            if sum(part.file_size for part in parts.infolist()) > _LARGEST_TABLE:
                raise BoneageError(
                    f"{name}: unpacks to more than a table of labels can hold; give the right file"
                )
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        # Read-only mode trusts the stated dimensions, which some programs write wrongly.
        sheet = book.worksheets[0]
        sheet.reset_dimensions()
        others = [other.title for other in book.worksheets[1:]]
        rows = [[_cell_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    except BoneageError:
        raise
    # For damaged files openpyxl passes on any exception of its XML and zip readers.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BoneageError(
            f"{name}: not a readable xlsx ({reason}); save it again, or save it as CSV"
        ) from None
    if others:
        warnings.warn(
            f"{name}: only its first sheet, {sheet.title}, is read, not {', '.join(others)}",
            BoneageWarning,
            stacklevel=2,
        )
    yield from ((line, cells) for line, cells in enumerate(rows, start=1) if any(cells))


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
