"""What a command is pointed at (files, folders, lists, tables), unrolled into single radiographs.

Everything is read as it is needed, so a list of a million paths takes no more memory than a short
one. Text lists are the ones of S3, one path a line; blank lines and lines that start with ``#`` are
left out. Tables are CSV files with a header in any of the dialects in use for RSNA's data.
"""

from __future__ import annotations

import csv
import math
import os
import re
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NoReturn

from boneage_cli.core.ages import MONTHS_PER_YEAR
from boneage_cli.core.cases import Case
from boneage_cli.datasets.dialects import FEMALE, HEADINGS, MALE, PARSERS, whole_id
from boneage_cli.datasets.manifest import IMAGE_SUFFIXES
from boneage_cli.errors import BoneageError

STANDARD_INPUT = "-"
TABLE_SUFFIXES = (".csv", ".tsv")
_ANY_SUFFIX = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))

Kind = Literal["image", "folder", "list", "table", "stdin"]

_OWN_HEADINGS = {
    "folder": ("dir", "folder", "directory"),
    "age_months": ("agemonths",),
    "age_years": ("ageyears",),
}


def cases(
    inputs: Sequence[str], male: bool | None = None, age: float | None = None
) -> Iterator[Case]:
    """Unrolls inputs into radiographs, lazily and in order.

    Args:
        inputs: Radiographs, folders (searched to the bottom, sorted by name), text lists, CSV
            tables, or ``-`` for a text list on standard input. Relative paths in a list or table
            are looked for in the current folder, then beside the list. A table without a path
            column is matched by id: ``<id>.png`` beside it, or in the folder that a row names.
        male: The sex of every radiograph whose table row names none.
        age: The chronological age in months of every child whose table row names none.

    Returns:
        An iterator over cases. A named file that does not exist is a case like any other: reading
        it fails, and says so.

    Raises:
        BoneageError: At once if an input does not exist or a table lacks a needed column; while
            iterating if a table's cell makes no sense, or an input turns out to be empty.
    """
    sources = [(text, _kind(text)) for text in inputs]
    for text, kind in sources:
        if kind == "table":
            _read_header(text)
    found = _unroll(sources, male)
    return found if age is None else _of_age(found, age)


def count_cases(inputs: Sequence[str]) -> int | None:
    """The number of radiographs in the inputs; None where standard input is one of them."""
    total = 0
    for text in inputs:
        kind = _kind(text)
        if kind == "stdin":
            return None
        if kind == "folder":
            total += sum(1 for _ in _folder_files(text))
        elif kind == "list":
            total += sum(1 for _ in _list_entries(text))
        elif kind == "table":
            total += sum(1 for _ in _table_rows(text))
        else:
            total += 1
    return total


def may_state_sex(inputs: Sequence[str]) -> bool:
    """Whether any input could name a child's sex: a DICOM file, or a table with a sex column.

    Standard input cannot be looked at twice and counts as one that could.
    """
    for text in inputs:
        kind = _kind(text)
        if kind == "stdin" or (
            kind == "table" and {"male", "female"} & _read_header(text).names.keys()
        ):
            return True
        with closing(_unroll([(text, kind)], None)) as found:
            if any(_may_be_dicom(Path(case.path)) for case in found):
                return True
    return False


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuses to write over what is read: an input, or what its name says is an image.

    Raises:
        BoneageError: The output is one of these.
    """
    if output.suffix.lower() in IMAGE_SUFFIXES:
        raise BoneageError(f"--output {output}: is named like an image; name a file for the ages")
    if output.exists() and any(
        Path(text).exists() and output.samefile(text) for text in inputs if text != STANDARD_INPUT
    ):
        raise BoneageError(f"--output {output}: is an input as well; choose another name")


def _kind(text: str) -> Kind:
    if text == STANDARD_INPUT:
        return "stdin"
    path = Path(text)
    suffix = path.suffix.lower()
    if path.is_dir():
        return "folder"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if not path.exists():
        # S3 takes the sex as its second argument.
        is_sex = text.lower() in MALE | FEMALE
        hint = "give the sex as --sex M or --sex F" if is_sex else "check the spelling"
        raise BoneageError(f"{text}: no such file or folder; {hint}")
    if not path.is_file():
        raise BoneageError(
            f"{text}: a pipe or a device, not a file; send what it says to 'boneage predict -'"
        )
    if suffix == ".xlsx":
        raise BoneageError(f"{text}: a workbook; save its sheet as CSV")
    if suffix in TABLE_SUFFIXES:
        return "table"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        _cannot_read(text, error)
    return "image" if b"\0" in start else "list"


def _unroll(sources: Sequence[tuple[str, Kind]], male: bool | None) -> Generator[Case, None, None]:
    for text, kind in sources:
        empty = True
        for case in _read(text, kind, male):
            empty = False
            yield case
        if empty:
            what = "radiographs" if kind == "folder" else "paths"
            name = "standard input" if kind == "stdin" else text
            raise BoneageError(f"{name}: no {what} in it; see 'boneage predict --help'")


def _of_age(cases: Iterator[Case], age: float) -> Iterator[Case]:
    for case in cases:
        yield case if case.age is not None else replace(case, age=age)


def _read(text: str, kind: Kind, male: bool | None) -> Iterator[Case]:
    if kind == "image":
        yield Case(path=text, male=male)
    elif kind == "folder":
        for path in _folder_files(text):
            yield Case(path=path, male=male)
    elif kind == "table":
        yield from _table_cases(text, male)
    else:
        folders = [None] if kind == "stdin" else [None, Path(text).parent]
        for entry in _list_entries(text):
            yield Case(path=_locate(entry, folders) or entry, male=male)


def _folder_files(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> NoReturn:
        _cannot_read(str(error.filename), error)

    # Links to folders are followed, each folder once, so that a link to a parent ends.
    seen = {Path(folder).resolve()}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        inner = []
        for name in sorted(folders):
            real = Path(root, name).resolve()
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                inner.append(name)
        folders[:] = inner
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and _is_radiograph(path):
                yield str(path)


def _is_radiograph(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    # DICOMDIR, the index of an archive, carries DICOM's mark as well, but no pixels.
    if not _may_be_dicom(path) or path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        _cannot_read(str(path), error)


def _may_be_dicom(path: Path) -> bool:
    # Archives name DICOM files IM000001 or by their UID, which ends in a number.
    suffix = path.suffix.lower()
    return suffix in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdigit()


def _list_entries(text: str) -> Iterator[str]:
    for line in _lines(text):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry


def _lines(text: str) -> Generator[str, None, None]:
    """The lines of a file or of standard input; bytes that are no UTF-8 stay what they are."""
    if text == STANDARD_INPUT:
        for raw in sys.stdin.buffer:
            yield raw.decode("utf-8-sig", errors="surrogateescape")
        return
    try:
        with Path(text).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from file
    except OSError as error:
        _cannot_read(text, error)


@dataclass(frozen=True)
class _Header:
    names: dict[str, str]  # what a column means: what the table calls it
    delimiter: str
    above: int  # blank lines


def _read_header(text: str) -> _Header:
    with closing(_lines(text)) as lines:
        above, line = next(((n, line) for n, line in enumerate(lines) if line.strip()), (0, ""))
    delimiter = max(",;\t", key=line.count)
    header = next(csv.reader([line], delimiter=delimiter), [])
    known = {re.sub(r"[\W_]+", "", name.lower()): name for name in header}
    names = {
        meaning: next(known[word] for word in words if word in known)
        for meaning, words in (HEADINGS | _OWN_HEADINGS).items()
        if any(word in known for word in words)
    }
    if "image" not in names and "id" not in names:
        found = ", ".join(name.strip() for name in header) or "nothing"
        raise BoneageError(
            f"{text}: the first line must name a column path, filename, image or id (it has "
            f"{found}); name a plain list of paths .txt"
        )
    return _Header(names, delimiter, above)


def _table_rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each row's line number and its cells by what they mean."""
    header = _read_header(text)
    lines = islice(_lines(text), header.above, None)
    reader = csv.DictReader(lines, delimiter=header.delimiter)
    try:
        for row in reader:
            yield (
                header.above + reader.line_num,
                {meaning: (row[name] or "").strip() for meaning, name in header.names.items()},
            )
    except csv.Error as error:
        line = header.above + reader.line_num
        raise BoneageError(
            f"{text}, line {line}: not a CSV file ({error}); save it again as CSV"
        ) from None


def _table_cases(text: str, male: bool | None) -> Iterator[Case]:
    table = Path(text)
    for number, row in _table_rows(text):
        where = f"{text}, line {number}"
        id = whole_id(row.get("id", ""))
        name = row.get("image") or id
        if not name:
            raise BoneageError(f"{where}: neither a path nor an id; fill it in or delete the line")
        folder = row.get("folder")
        folders: list[Path | None] = (
            [Path(folder), table.parent / folder]
            if folder
            else [None, table.parent, table.with_suffix("")]
        )
        yield Case(
            path=_locate(name, folders, _ANY_SUFFIX) or str(Path(folder or "", name)),
            male=_sex(where, row, male),
            aspect=_aspect(where, row),
            id=id or None,
            age=_age(where, row),
            known=PARSERS["boneage"](where, row["boneage"]) if "boneage" in row else None,
        )


def _sex(where: str, row: dict[str, str], default: bool | None) -> bool | None:
    stated = [PARSERS[name](where, row[name]) for name in ("male", "female") if name in row]
    return next((male for male in stated if male is not None), default)


def _age(where: str, row: dict[str, str]) -> float | None:
    for name, months in (("age_months", 1), ("age_years", MONTHS_PER_YEAR)):
        if text := row.get(name):
            try:
                age = float(text) * months
            except ValueError:
                age = math.nan
            if not 0 <= age < math.inf:
                raise BoneageError(f"{where}: {name} '{text}' is no age; mend it or leave it empty")
            return age
    return None


def _aspect(where: str, row: dict[str, str]) -> float | None:
    width, height = (
        PARSERS[name](where, row[name]) if name in row else None for name in ("width", "height")
    )
    if width is None or height is None:
        return None
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise BoneageError(
            f"{where}: width {width:g} and height {height:g} are no size in pixels; mend them or "
            "leave them empty"
        )
    return width / height


def _locate(name: str, folders: Sequence[Path | None], suffixes: Sequence[str] = ()) -> str | None:
    """The first file of that name in the folders, tried with each suffix where it has none.

    A name found in the current folder (None) is given back as it was written.
    """
    endings = [""] if name.lower().endswith(IMAGE_SUFFIXES) else ["", *suffixes]
    for folder in folders:
        for ending in endings:
            # pathlib takes several times as long, which tells in a list of a million.
            path = os.path.join(folder or "", name + ending)  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113
                return path
    return None


def _cannot_read(path: str, error: OSError) -> NoReturn:
    raise BoneageError(
        f"{path}: cannot be read ({error.strerror}); check its permissions"
    ) from None
