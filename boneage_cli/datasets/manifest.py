"""The common format of all data sets: a folder of images with one table per split.

A data set is a folder::

    train/ validation/ test/                  images
    train.csv validation.csv test.csv         id,path,boneage,male,split[,width,height,…]
    SOURCE.json                               origin, terms and settings

``path`` is relative to the folder, ``boneage`` is in months (empty where unknown), ``male`` is
True or False (empty where unknown). ``width`` and ``height`` are the size in pixels of the original
radiograph if the stored image was resized without keeping the aspect. ``patient`` is present if
the source names patients; it keeps the radiographs of one child in one split.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_cli.ages import is_bone_age, look_like_years
from boneage_cli.csv_files import write_csv
from boneage_cli.datasets.tables import check_width, csv_rows
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.sexes import sex_letter

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "path", "boneage", "male", "split")
SEX_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""Cells of the column ``male``, in lower case."""
EMPTY_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>"})
"""Cells of a number or of ``male`` that state nothing, in lower case. An id or a patient may be
called NA, by its initials for example."""


def write_manifest(manifest: pd.DataFrame, folder: Path) -> None:
    """Writes one CSV per split into a data set's folder; splits without rows get no file.

    Args:
        manifest: Rows with at least ``COLUMNS``; ``path`` relative to ``folder``.
        folder: The data set's folder.
    """
    extra = [column for column in manifest.columns if column not in COLUMNS]
    for split, rows in manifest.groupby("split", sort=False):
        # Whole numbers are written as integers: 120, not 120.0.
        write_csv(rows[[*COLUMNS, *extra]].convert_dtypes(), folder / f"{split}.csv")


def read_manifest(folder: Path, split: str | None = None) -> pd.DataFrame:
    """Reads the normalised table of a data set, or of one of its splits.

    Args:
        folder: The data set's folder.
        split: Name of the table without its suffix; None for all existing ones of ``SPLITS``.

    Returns:
        A table with ``COLUMNS`` (and width, height, patient if known): ``id`` str, ``path`` str
        (absolute), ``boneage`` float (months), ``male`` nullable boolean, ``split`` str (taken from
        the file's name).

    Raises:
        BoneageError: The folder holds no such table; or the table is no CSV, lacks a column, has a
            row that is too long, or a cell that is missing or cannot be read.
    """
    import pandas as pd

    folder = Path(folder)
    names = SPLITS if split is None else (split,)
    files = [folder / f"{name}.csv" for name in names if (folder / f"{name}.csv").is_file()]
    if not files:
        wanted = "train.csv" if split is None else f"{split}.csv"
        there = [f"{name}.csv" for name in SPLITS if (folder / f"{name}.csv").is_file()]
        way_out = (
            f"there is {', '.join(there)}" if there else "make a data set with 'boneage fetch'"
        )
        raise BoneageError(f"{folder}: no {wanted} here; {way_out}")
    manifest = pd.concat(map(_read_table, files), ignore_index=True)
    manifest["path"] = [str((folder / path).absolute()) for path in manifest["path"]]
    return manifest


def read_cells(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Reads the table of a split as text.

    Args:
        file: A CSV file with ``COLUMNS``.

    Returns:
        The headings, and of each row the line number and the cells: at least one for each heading,
        empty where the row ends early, and more where it is too long. Empty rows are left out.

    Raises:
        BoneageError: The file is no CSV table, lacks a column or has two of one name.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = list(csv_rows(str(file), lines))
    except OSError as error:
        raise BoneageError(
            f"{file}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    header = rows.pop(0)[1] if rows else []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise BoneageError(
            f"{file}: no column {', '.join(missing)}; 'boneage fetch local {file.parent}' makes a "
            "normalised data set from other layouts"
        )
    named = [column for column in header if column]
    if len(named) > len(set(named)):
        twice = next(column for column in named if named.count(column) > 1)
        raise BoneageError(f"{file}: two columns {twice!r}; delete one, or rename it")
    return header, [(line, cells + [""] * (len(header) - len(cells))) for line, cells in rows]


def _read_table(file: Path) -> pd.DataFrame:
    """Returns a split; ``path`` is as the table states it."""
    import pandas as pd

    header, rows = read_cells(file)
    for line, cells in rows:
        check_width(f"{file}, line {line}", cells, len(header))
    table = {}
    for place, column in enumerate(header):
        # pandas writes an index without a heading; such a column has no meaning here.
        if not column:
            continue
        parse, dtype = _COLUMN_TYPES.get(column, (_parse_text, "str"))
        values = []
        for line, cells in rows:
            try:
                values.append(parse(cells[place]))
            except ValueError as error:
                raise BoneageError(
                    f"{file}, line {line}: {column} {error}; correct it ('boneage check-data "
                    f"--data {file.parent}' lists all such cells)"
                ) from None
        table[column] = pd.Series(values, dtype=dtype)
    # The split column is ignored: it must not move a test radiograph into the training data.
    return pd.DataFrame(table).assign(split=file.stem)


def _parse_text(cell: str) -> str | None:
    return cell or None


def _parse_name(cell: str) -> str:
    if not cell:
        raise ValueError("is missing")
    return cell


def parse_male(cell: str) -> bool | None:
    """Reads a cell of the column ``male``; None if it states nothing.

    Raises:
        ValueError: It is neither True nor False; the message quotes it.
    """
    if cell.lower() in EMPTY_WORDS:
        return None
    if cell.lower() not in SEX_WORDS:
        raise ValueError(f"{cell!r} is neither True nor False")
    return SEX_WORDS[cell.lower()]


def parse_number(cell: str) -> float | None:
    """Reads a cell of the column ``boneage``, which may be infinite; None if it states nothing.

    Raises:
        ValueError: It is no number; the message quotes it.
    """
    if cell.lower() in EMPTY_WORDS:
        return None
    try:
        # Python reads 1_2 as 12.
        return float(cell.replace("_", "?"))
    except ValueError:
        raise ValueError(f"{cell!r} is no number") from None


def parse_size(cell: str) -> float | None:
    """Reads a cell of the columns ``width`` and ``height``; None if it states nothing.

    Raises:
        ValueError: It is no number above 0; the message quotes it.
    """
    length = parse_number(cell)
    if length is not None and not 0 < length < math.inf:
        raise ValueError(f"{cell!r} is no size in pixels")
    return length


_COLUMN_TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "id": (_parse_name, "str"),
    "path": (_parse_name, "str"),
    "boneage": (parse_number, "float"),
    "male": (parse_male, "boolean"),
    "width": (parse_size, "float"),
    "height": (parse_size, "float"),
}


def true_aspects(manifest: pd.DataFrame) -> list[float | None]:
    """Returns the width-to-height ratio of each original radiograph; None if not recorded."""
    if not {"width", "height"} <= set(manifest.columns):
        return [None] * len(manifest)
    ratios = manifest["width"].astype(float) / manifest["height"].astype(float)
    return [ratio if math.isfinite(ratio) and ratio > 0 else None for ratio in ratios]


def sex_letters(manifest: pd.DataFrame) -> list[str | None]:
    """Returns the sex of each row as M or F; None if unknown."""
    import pandas as pd

    return [None if pd.isna(male) else sex_letter(male) for male in manifest["male"]]


def warn_of_years(manifest: pd.DataFrame) -> None:
    """Warns of known bone ages that look like years; all ages are taken for months."""
    ages = [age for age in manifest["boneage"].astype(float) if is_bone_age(age)]
    if look_like_years(ages):
        warnings.warn(
            f"known ages from {min(ages):g} to {max(ages):g} look like years; give months",
            BoneageWarning,
            stacklevel=3,
        )


def warn_of_impossible_ages(manifest: pd.DataFrame) -> None:
    """Warns of impossible bone ages, which are used nevertheless."""
    ages = manifest["boneage"].astype(float)
    wrong = manifest[ages.notna() & ~ages.map(is_bone_age)]
    if len(wrong):
        first = wrong.iloc[0]
        warnings.warn(
            f"{len(wrong)} of {len(manifest)} known bone ages are impossible (radiograph "
            f"{first['id']}: {first['boneage']:g} months) and distort what is made of them; "
            "'boneage check-data' lists them",
            BoneageWarning,
            stacklevel=3,
        )
