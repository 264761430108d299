"""Reads label tables with any of the column names in use into one format.

Headings are compared without case, blanks and punctuation, so ``Bone Age (months)`` and
``bone_age_months`` are equal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boneage_cli.datasets.manifest import EMPTY_WORDS, SEX_WORDS, SPLITS
from boneage_cli.datasets.names import image_stem, named_split, posix_path, whole_id
from boneage_cli.datasets.tables import check_width, table_rows
from boneage_cli.errors import BoneageError

if TYPE_CHECKING:
    import pandas as pd

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

MALE = {word for word, male in SEX_WORDS.items() if male} | {"m", "male", "boy", "yes", "t", "y"}
FEMALE = {word for word, male in SEX_WORDS.items() if not male} | {"f", "female", "girl", "no", "n"}
_UNKNOWN = EMPTY_WORDS | {"unknown", "u", "o", "?"}


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

    header: list[str] = []
    columns: dict[str, list[int]] = {}
    records: list[dict[str, Any]] = []
    for line, cells in table_rows(name, content):
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
    folders = [str(posix_path(name).parent) for name in names if name]
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
    if text.lower() in _UNKNOWN:
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


def _parse_size(where: str, text: str) -> float | None:
    length = _parse_number(where, text)
    if length is not None and not 0 < length < math.inf:
        raise BoneageError(f"{where}: {text!r} is no size in pixels; correct it or leave it empty")
    return length


def _parse_male(where: str, text: str) -> bool | None:
    word = text.lower()
    if word in MALE:
        return True
    if word in FEMALE:
        return False
    if word in _UNKNOWN:
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
    if split is None and text.lower() not in _UNKNOWN:
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
    "width": _parse_size,
    "height": _parse_size,
}
