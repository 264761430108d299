"""Expands a command's inputs (files, folders, lists, tables) into single radiographs.

Inputs are read lazily, so a list of a million paths takes no more memory than a short one. Text
lists have one path per line, as in BoneXage; blank lines and lines that start with ``#`` are
skipped. Tables are CSV files with a header in any of the dialects used for the RSNA data. Both may
be UTF-8, UTF-16 or Windows-1252.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NoReturn

from boneage_cli.ages import MONTHS_PER_YEAR, is_childs_age
from boneage_cli.core.prediction.cases import Case
from boneage_cli.datasets.dialects import FEMALE, HEADINGS, MALE, PARSERS, SEX_HEADINGS, columns_of
from boneage_cli.datasets.folders import radiographs_below
from boneage_cli.datasets.names import whole_id
from boneage_cli.datasets.tables import CSV_SUFFIXES, check_width, csv_rows
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.imaging.file_headers import is_dicom
from boneage_cli.imaging.reading import NoImageError
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

STANDARD_INPUT = "-"
_ANY_SUFFIX = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))

Kind = Literal["image", "folder", "list", "table", "stdin"]

_OWN_HEADINGS = {
    "folder": ("dir", "folder", "directory"),
    "age_months": ("agemonths", "ageinmonths"),
    "age_years": ("ageyears", "ageinyears"),
    "age": ("age",),
}
# Columns of the child's age, and their unit in months.
_AGES = {"age_months": 1, "age_years": MONTHS_PER_YEAR}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def cases(
    inputs: Sequence[str],
    male: bool | None = None,
    age: float | None = None,
    tags: Sequence[str] = (),
) -> Iterator[Case]:
    """Expands inputs into radiographs, lazily and in order.

    Args:
        inputs: Radiographs, folders (searched recursively, sorted by name), text lists, CSV tables,
            or ``-`` for a text list on standard input. Relative paths in a list or table are
            searched in the current folder, then in that of the list. A table without a path column
            is matched by id: ``<id>.png`` in the table's folder or in the folder named in the row.
        male: The sex for radiographs without one in a table row.
        age: The chronological age in months for children without one in a table row.
        tags: DICOM elements that each prediction includes, see ``Case``.

    Returns:
        An iterator over cases. A listed file that does not exist is also a case; reading it raises
        the error. A row with invalid cells is a case with an ``error``.

    Raises:
        BoneageError: At once if an input does not exist, a table lacks a needed column, or no path
            of a list or table exists; while iterating if an input is empty or is not a CSV table.
    """
    sources = [(text, _kind(text)) for text in inputs]
    for text, kind in sources:
        if kind == "table":
            # Reads the whole table, so that a damaged one fails before anything is predicted.
            deque(_table_rows(text), maxlen=0)
            columns = _read_header(text).columns
            if "age" in columns and not columns.keys() & _AGES.keys():
                warnings.warn(
                    f"{text}: the column age is ignored, since it could be months or years; "
                    "rename it age_months or age_years",
                    BoneageWarning,
                    stacklevel=2,
                )
        elif kind == "folder":
            _warn_of_squashed(Path(text))
        if kind in ("list", "table"):
            _check_paths(text, kind)
    found = _unroll(sources, male, tell=True)
    if age is not None or tags:
        return (
            replace(case, age=age if case.age is None else case.age, tags=tuple(tags))
            for case in found
        )
    return found


def _check_paths(text: str, kind: Kind) -> None:
    """Refuses a list or table of which no path exists.

    An archive that is not mounted would else give an error for each path, and the exit status of
    an archive in which some radiographs are refused, as in most.
    """
    missing = None
    with closing(_read(text, kind, None)) as found:
        for case in found:
            # os.path.exists also answers for names that are too long or hold a null.
            if os.path.exists(case.path):  # noqa: PTH110
                return
            if missing is None and case.error is None:
                missing = case.path
    if missing is not None:
        raise BoneageError(
            f"{text}: none of its paths exists (the first is {missing:.200}); mount the archive, "
            "go to the folder where relative paths start, or name a list of radiographs"
        )


def some_cases(
    inputs: Sequence[str], male: bool | None = None, most: int | None = None
) -> list[Case]:
    """Returns the first radiographs of inputs, to measure something on them.

    DICOM files without an image, such as reports, that were found in folders are left out.

    Args:
        inputs: As for ``cases``.
        male: As for ``cases``.
        most: The largest number of radiographs; None for all.

    Raises:
        BoneageError: As for ``cases``, or there are no radiographs.
    """
    chosen = list(islice(_with_images(cases(inputs, male)), most))
    if not chosen:
        raise BoneageError(f"{', '.join(inputs)}: no radiograph in it; name others")
    return chosen


def _with_images(found: Iterable[Case]) -> Iterator[Case]:
    for case in found:
        if case.searched_for and case.error is None and is_dicom(Path(case.path)):
            try:
                case.read()
            except NoImageError:
                continue
        yield case


def _warn_of_squashed(folder: Path) -> None:
    """Warns if a folder belongs to a data set whose table has its images' true proportions."""
    table = folder.resolve().parent / f"{folder.resolve().name}.csv"
    if not table.is_file():
        return
    with suppress(BoneageError):
        if {"width", "height"} <= _read_header(str(table)).columns.keys():
            warnings.warn(
                f"{folder}: predicted in the proportions of the files; those of the originals are "
                f"in {os.path.normpath(folder / '..' / table.name)}, name that instead",
                BoneageWarning,
                stacklevel=3,
            )


def count_cases(inputs: Sequence[str]) -> int | None:
    """Counts the radiographs in the inputs; None if standard input is one of them."""
    total = 0
    for text in inputs:
        kind = _kind(text)
        if kind == "stdin":
            return None
        if kind == "folder":
            total += sum(1 for _ in radiographs_below(text))
        elif kind == "list":
            total += sum(1 for _ in _list_entries(text))
        elif kind == "table":
            total += sum(1 for _ in _table_rows(text))
        else:
            total += 1
    return total


def may_state_sex(inputs: Sequence[str]) -> bool:
    """Whether any input could state a child's sex: a DICOM file, or a table with a sex column.

    Standard input cannot be read twice, so it is assumed to, as is an input without radiographs,
    which has an error of its own.
    """
    for text in inputs:
        kind = _kind(text)
        if kind == "stdin" or (
            kind == "table" and {*SEX_HEADINGS} & _read_header(text).columns.keys()
        ):
            return True
        with closing(_read(text, kind, None)) as found:
            paths = (Path(case.path) for case in found)
            first = next(paths, None)
            if first is None or any(map(_may_be_dicom, chain([first], paths))):
                return True
    return False


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
        # BoneXage takes the sex as its second argument.
        is_sex = text.lower() in MALE | FEMALE
        hint = "give the sex as --sex M or --sex F" if is_sex else "check the spelling"
        raise BoneageError(f"{text}: no such file or folder; {hint}")
    if not path.is_file():
        raise BoneageError(
            f"{text}: a pipe or a device, not a file; pipe its paths into 'boneage predict -'"
        )
    if suffix == ".xlsx":
        raise BoneageError(f"{text}: a workbook; save its sheet as CSV")
    if suffix in CSV_SUFFIXES:
        return "table"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        _cannot_read(text, error)
    return "image" if b"\0" in start and not start.startswith(_UTF_16) else "list"


def _unroll(
    sources: Sequence[tuple[str, Kind]], male: bool | None, *, tell: bool = False
) -> Generator[Case, None, None]:
    for text, kind in sources:
        empty = True
        for case in _read(text, kind, male, tell):
            empty = False
            yield case
        if empty:
            what = "radiographs" if kind == "folder" else "paths"
            name = "standard input" if kind == "stdin" else text
            suffixes = f" ({', '.join(IMAGE_SUFFIXES)})" if kind == "folder" else ""
            problem = f"{name}: no {what} in it{suffixes}; see 'boneage predict --help'"
            if len(sources) == 1:
                raise BoneageError(problem)
            # The other inputs are still predicted.
            yield Case(path=name, error=problem)


def _read(
    text: str, kind: Kind, male: bool | None, tell: bool = False
) -> Generator[Case, None, None]:
    if kind == "image":
        yield Case(path=text, male=male)
    elif kind == "folder":
        for path, error in radiographs_below(text, warn=tell):
            yield Case(path=path, male=male, error=error, searched_for=True)
    elif kind == "table":
        yield from _table_cases(text, male)
    else:
        folders = [None] if kind == "stdin" else [None, Path(text).parent]
        for entry in _list_entries(text):
            yield Case(path=_locate(entry, folders) or entry, male=male)


def _may_be_dicom(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in (".dcm", ".dicom") or suffix not in IMAGE_SUFFIXES


def _list_entries(text: str) -> Iterator[str]:
    for line in _lines(text):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry


def _lines(text: str) -> Generator[str, None, None]:
    """Yields the lines of a file or of standard input; bytes that are not UTF-8 are preserved."""
    if text == STANDARD_INPUT:
        for raw in _standard_input():
            if b"\0" in raw:
                raise BoneageError(
                    "standard input is no list with a path per line, but an image (name its file) "
                    "or separated by nulls (leave out -print0)"
                )
            yield raw.decode("utf-8-sig", errors="surrogateescape")
        return
    path = Path(text)
    try:
        with path.open("rb") as file:
            wide = file.read(2) in _UTF_16
        encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
        with path.open(encoding=encoding, errors=errors, newline="") as lines:
            yield from lines
    except OSError as error:
        _cannot_read(text, error)


def _standard_input() -> Iterable[bytes]:
    # Not sys.stdin's own buffer: Python cannot exit while a thread waits for it.
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:
        return sys.stdin.buffer


@dataclass(frozen=True)
class _Header:
    columns: dict[str, list[int]]  # column numbers by meaning
    width: int


def _read_header(text: str) -> _Header:
    with closing(_lines(text)) as lines:
        return _first_row(text, csv_rows(text, lines))


def _first_row(text: str, rows: Iterator[tuple[int, list[str]]]) -> _Header:
    _, header = next(rows, (0, []))
    columns = columns_of(header, HEADINGS | _OWN_HEADINGS)
    if "image" not in columns and "id" not in columns:
        found = ", ".join(header) or "nothing"
        raise BoneageError(
            f"{text}: the first line must name a column path, filename, image or id (it has "
            f"{found}); name a plain list of paths .txt"
        )
    return _Header(columns, len(header))


def _table_rows(text: str) -> Iterator[tuple[int, list[str], _Header]]:
    """Yields each row's line number, its cells, and the header; empty rows are skipped."""
    rows = csv_rows(text, _lines(text))
    header = _first_row(text, rows)
    for number, cells in rows:
        yield number, cells, header


def _table_cases(text: str, male: bool | None) -> Iterator[Case]:
    table = Path(text)
    for number, cells, header in _table_rows(text):
        where = f"{text}, line {number}"
        row = {
            meaning: [cells[place] for place in places if place < len(cells) and cells[place]]
            for meaning, places in header.columns.items()
        }
        id = whole_id(_first(row, "id"))
        name = _first(row, "image") or id
        if not name:
            problem = f"{where}: neither a path nor an id; fill it in or delete the line"
            yield Case(path=where, error=problem)
            continue
        folder = _first(row, "folder")
        folders: list[Path | None] = (
            [Path(folder), table.parent / folder]
            if folder
            else [None, table.parent, table.with_suffix("")]
        )
        path = _locate(name, folders, _ANY_SUFFIX) or str(Path(folder, name))
        case = Case(path=path, male=male, id=id or None)
        try:
            check_width(where, cells, header.width)
            yield replace(
                case,
                male=_sex(where, row, male),
                aspect=_aspect(where, row),
                age=_age(where, row),
                known=_reading(_first(row, "boneage")),
            )
        except BoneageError as error:
            # The other rows are still predicted.
            yield replace(case, error=str(error))


def _first(row: Mapping[str, Sequence[str]], meaning: str) -> str:
    return next(iter(row.get(meaning, ())), "")


def _sex(where: str, row: Mapping[str, Sequence[str]], default: bool | None) -> bool | None:
    stated = {PARSERS[name](where, text) for name in SEX_HEADINGS for text in row.get(name, ())} - {
        None
    }
    if len(stated) > 1:
        raise BoneageError(f"{where}: two columns contradict each other on the sex; correct one")
    return next(iter(stated), default)


def _age(where: str, row: Mapping[str, Sequence[str]]) -> float | None:
    stated: list[float] = []
    for name, months in _AGES.items():
        text = _first(row, name)
        try:
            number = PARSERS["boneage"](where, text)
        except BoneageError:
            number = math.nan
        if number is not None and not is_childs_age(number * months):
            raise BoneageError(
                f"{where}: {name} '{text}' is not an age; correct it or leave it empty"
            )
        if number is not None:
            stated.append(number * months)
    # The columns may differ by less than a year, since years may be rounded down.
    if stated and max(stated) - min(stated) >= MONTHS_PER_YEAR:
        raise BoneageError(f"{where}: two columns contradict each other on the age; correct one")
    return stated[0] if stated else None


def _reading(text: str) -> float | None:
    # Prediction does not need it, and a list of hands still to be read may say "pending".
    with suppress(BoneageError):
        return PARSERS["boneage"]("", text)
    return None


def _aspect(where: str, row: Mapping[str, Sequence[str]]) -> float | None:
    width, height = (PARSERS[name](where, _first(row, name)) for name in ("width", "height"))
    return None if width is None or height is None else width / height


def _locate(name: str, folders: Sequence[Path | None], suffixes: Sequence[str] = ()) -> str | None:
    """Returns the first file of that name in the folders; tries each suffix if it has none.

    A name found in the current folder (None) is returned as it was written.
    """
    endings = [""] if name.lower().endswith(IMAGE_SUFFIXES) else ["", *suffixes]
    for spelling in _spellings(name):
        for folder in folders:
            for ending in endings:
                # pathlib is several times slower, which matters for a list of a million.
                path = os.path.join(folder or "", spelling + ending)  # noqa: PTH118
                if os.path.isfile(path):  # noqa: PTH113
                    return path
    return None


def _spellings(name: str) -> Iterator[str]:
    """Yields a name as it is, in Windows's notation, and as Windows-1252 if it is not UTF-8."""
    yield name
    if "\\" in name or name.startswith('"'):
        yield name.strip('"')
        yield name.strip('"').replace("\\", "/")
    try:
        name.encode()
    except UnicodeEncodeError:
        yield os.fsencode(name).decode("cp1252", errors="replace")


def _cannot_read(path: str, error: OSError) -> NoReturn:
    raise BoneageError(
        f"{path}: cannot be read ({error.strerror}); check its permissions"
    ) from None
