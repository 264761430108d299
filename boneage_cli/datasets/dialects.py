"""Reads label tables with any of the column names in use into one format.

CSV (comma, semicolon or tab; UTF-8, UTF-16 or Windows-1252) and xlsx. Headings are compared without
case, blanks and punctuation, so ``Bone Age (months)`` and ``bone_age_months`` are equal.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (*CSV_SUFFIXES, ".xlsx")

# An xlsx is a zip: a few kilobytes can unpack to gigabytes. Official tables are below 1 MB.
LARGEST_TABLE = 200_000_000

HEADINGS = {
    "id": ("id", "imageid", "caseid", "imgid"),
    "image": ("filename", "file", "path", "filepath", "imagepath", "imagename", "image"),
    "boneage": (
        "boneage",
        "boneagemonths",
        "boneageinmonths",
        "groundtruthboneage",
        "groundtruthboneagemonths",
    ),
    "male": ("male", "ismale"),
    "female": ("female", "isfemale"),
    "sex": ("sex", "gender"),
    "patient": ("patientid", "patient"),
    "split": ("split", "subset"),
    "width": ("width",),
    "height": ("height",),
}

SEX_HEADINGS = ("male", "female", "sex")
"""Meanings of headings whose cells state the sex."""

MALE = {"true", "1", "1.0", "m", "male", "boy", "yes", "t", "y"}
FEMALE = {"false", "0", "0.0", "f", "female", "girl", "no", "n"}
UNKNOWN = {"", "nan", "na", "n/a", "none", "null", "<na>", "unknown", "u", "o", "?"}

SPLIT_WORDS = {
    "train": {"train", "training", "trainset"},
    "validation": {"val", "valid", "validation", "validate", "valset", "validset"},
    "test": {"test", "testing", "testset"},
}


class UnknownHeadings(BoneageError):
    """Raised for a table without an id column, or without any column of labels or sizes."""


def read_table(name: str, content: bytes) -> pd.DataFrame:
    """Reads a table of labels, or of image sizes, in any dialect.

    Args:
        name: The table's name for messages; its suffix decides between CSV and xlsx.
        content: The file's bytes.

    Returns:
        One row per radiograph: ``id`` (str, without an image suffix) and ``image`` (str, the stem
        of its file), and those of the following that the table has: ``boneage`` (float, months, NaN
        where empty), ``male`` (nullable boolean), ``patient`` (str or None), ``split`` (one of
        ``SPLITS`` or None), ``width`` and ``height`` (float, pixels), ``folder`` (str or None, that
        of the file as the table names it).

    Raises:
        UnknownHeadings: The headings name no id, or neither bone age nor sex nor size.
        BoneageError: The file is damaged, or a cell's value is invalid for its column.
    """
    import pandas as pd

    suffix = PurePosixPath(name).suffix.lower()
    if len(content) > LARGEST_TABLE:
        raise BoneageError(f"{name}: too large for a table of labels; give the right file")
    if suffix == ".xlsx":
        rows = _xlsx_rows(name, content)
    else:
        rows = csv_rows(name, io.StringIO(_decode(content), newline=""))
    header: list[str] = []
    columns: dict[str, list[int]] = {}
    records: list[dict[str, Any]] = []
    for line, cells in rows:
        if not any(cells):
            continue
        if not header:
            header = cells
            columns = _recognise(name, header)
            continue
        check_width(f"{name}, line {line}", cells, len(header))
        cells += [""] * (len(header) - len(cells))
        records.append(_record(f"{name}, line {line}", header, columns, cells))
    if not header:
        raise UnknownHeadings(f"{name}: empty; {_wanted()}")
    present = _present(columns)
    if any(record["folder"] for record in records):
        present.append("folder")
    table = pd.DataFrame.from_records(records, columns=present)
    if "male" in table:
        table["male"] = table["male"].astype("boolean")
    for column in {"boneage", "width", "height"} & set(table.columns):
        table[column] = table[column].astype(float)
    return table


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


def columns_of(
    header: Sequence[str], headings: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Maps each meaning that occurs in the header to the positions of its columns.

    Args:
        header: The column names.
        headings: The spellings of each meaning, in lower case without blanks and punctuation.
    """
    meanings = {heading: meaning for meaning, spelt in headings.items() for heading in spelt}
    columns: dict[str, list[int]] = {}
    for position, heading in enumerate(header):
        if meaning := meanings.get(re.sub(r"[\W_]+", "", heading.lower())):
            columns.setdefault(meaning, []).append(position)
    return columns


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


def named_split(name: str) -> str | None:
    """Finds the split mentioned in the name of a file or folder.

    Args:
        name: One name, such as ``boneage-training-dataset`` or ``RSNA_val``.

    Returns:
        One of ``SPLITS``; None if the name mentions none or several.
    """
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    found = [split for split in SPLITS if words & SPLIT_WORDS[split]]
    return found[0] if len(found) == 1 else None


def image_stem(text: str) -> str:
    """Strips folders and a known image suffix: ``scans/4360.png`` is radiograph ``4360``."""
    name = _posix(text).name
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def _posix(text: str) -> PurePosixPath:
    return PurePosixPath(text.strip().replace("\\", "/"))


def whole_id(text: str) -> str:
    """Strips the ``.0`` that spreadsheets and data frames with gaps append: ``1377.0``."""
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text


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
            if sum(part.file_size for part in parts.infolist()) > LARGEST_TABLE:
                raise BoneageError(
                    f"{name}: unfolds to more than a table of labels can hold; give the right file"
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
    yield from enumerate(rows, start=1)


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _recognise(name: str, header: list[str]) -> dict[str, list[int]]:
    """Returns the positions of the columns of each meaning."""
    columns = columns_of(header, HEADINGS)
    is_named = columns.keys() & {"id", "image"}
    is_labelled = columns.keys() & {"boneage", *SEX_HEADINGS}
    is_measured = {"width", "height"} <= columns.keys()
    if not is_named or not (is_labelled or is_measured):
        found = ", ".join(repr(heading) for heading in header[:8])
        raise UnknownHeadings(f"{name}: headings {found}; {_wanted()}")
    return columns


def _wanted() -> str:
    return (
        "wanted: an id ('id', 'Image ID', 'Case ID' or 'filename') with a bone age in months "
        "('boneage' or 'Bone Age (months)') and a sex ('male', 'sex' or 'gender'), or with 'width' "
        "and 'height'"
    )


def _present(columns: Iterable[str]) -> list[str]:
    present = {"male" if column in SEX_HEADINGS else column for column in columns}
    ordered = [column for column in HEADINGS if column in present]
    return ["id", "image", *(column for column in ordered if column not in ("id", "image"))]


def _record(
    where: str, header: list[str], columns: dict[str, list[int]], cells: list[str]
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for meaning, positions in columns.items():
        column = "male" if meaning in SEX_HEADINGS else meaning
        for position in positions:
            value = PARSERS[meaning](f"{where}, {header[position]!r}", cells[position])
            earlier = record.get(column)
            if earlier is not None and value is not None and earlier != value:
                raise BoneageError(
                    f"{where}: {header[position]!r} contradicts another column of the same "
                    "meaning; keep the right one"
                )
            record[column] = value if earlier is None else earlier
    names = [cells[position] for position in columns.get("image", ())]
    folders = [str(_posix(name).parent) for name in names if name]
    record["folder"] = next((folder for folder in folders if folder != "."), None)
    record["id"] = record.get("id") or record.get("image")
    record["image"] = record.get("image") or record["id"]
    if not record["id"]:
        raise BoneageError(f"{where}: no id; fill it in or delete the line")
    return record


def _parse_id(where: str, text: str) -> str | None:
    stem = whole_id(image_stem(text))
    if stem in (".", "..") or stem.startswith("."):
        raise BoneageError(f"{where}: {text!r} cannot name a radiograph; correct the id")
    return stem or None


def _parse_number(where: str, text: str) -> float | None:
    if text.lower() in UNKNOWN:
        return None
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", text) or "_" in text:
        raise BoneageError(f"{where}: {text!r} is not clear; write it without separators")
    decimal_comma = re.fullmatch(r"([+-]?\d*),(\d+)", text)
    try:
        return float(f"{decimal_comma[1]}.{decimal_comma[2]}" if decimal_comma else text)
    except ValueError:
        raise BoneageError(
            f"{where}: {text!r} is not a number; correct it or leave it empty"
        ) from None


def _parse_male(where: str, text: str) -> bool | None:
    word = text.lower()
    if word in MALE:
        return True
    if word in FEMALE:
        return False
    if word in UNKNOWN:
        return None
    raise BoneageError(f"{where}: sex {text!r} is not understood; write M, F or nothing")


def _parse_female(where: str, text: str) -> bool | None:
    """Parses a cell under "female": 1, yes or true is a girl, but M a boy as in any column."""
    word = text.lower()
    if word == "f":
        raise BoneageError(
            f"{where}: {text!r} could be female or false; name the column sex, or write 1 and 0"
        )
    answer = _parse_male(where, text)
    names_the_sex = word in ("m", "male", "boy", "female", "girl")
    return answer if answer is None or names_the_sex else not answer


def _parse_sex(where: str, text: str) -> bool | None:
    """Parses a cell under "sex" or "gender", where 1 means a girl in some tables, a boy in others.

    ISO 5218 has 1 for male and 2 for female; questionnaires often have 0 and 1.
    """
    if re.fullmatch(r"\d+(\.0)?", text):
        raise BoneageError(
            f"{where}: {text!r} could be either sex; write M and F, or name the column male"
        )
    return _parse_male(where, text)


def _parse_split(where: str, text: str) -> str | None:
    split = named_split(text)
    if split is None and text.lower() not in UNKNOWN:
        raise BoneageError(f"{where}: split {text!r} is not understood; write {', '.join(SPLITS)}")
    return split


def _parse_text(where: str, text: str) -> str | None:
    return text or None


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "id": _parse_id,
    "image": _parse_id,
    "boneage": _parse_number,
    "male": _parse_male,
    "female": _parse_female,
    "sex": _parse_sex,
    "patient": _parse_text,
    "split": _parse_split,
    "width": _parse_number,
    "height": _parse_number,
}
