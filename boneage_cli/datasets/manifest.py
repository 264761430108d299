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
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_cli.ages import YEARS_AT_MOST, is_bone_age
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import whole_file
from boneage_cli.sexes import sex_letter

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "path", "boneage", "male", "split")
# Fewer ages than this may all be of infants.
_ENOUGH_AGES = 10
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
        with whole_file(folder / f"{split}.csv") as temporary:
            # Names of files need not be UTF-8.
            rows[[*COLUMNS, *extra]].to_csv(temporary, index=False, errors="surrogateescape")


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
        BoneageError: The folder holds no such table, or the table lacks a column or has an
            unreadable cell.
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
    tables = []
    for file in files:
        try:
            table = _read_cells(file)
        except (OSError, ValueError) as error:
            raise _unreadable(file, str(error)) from None
        missing = [column for column in COLUMNS if column not in table.columns]
        if missing:
            raise BoneageError(
                f"{file}: no column {', '.join(missing)}; 'boneage fetch local {folder}' makes a "
                "normalised data set from other layouts"
            )
        if table["path"].isna().any():
            raise _unreadable(file, "a row has no path")
        try:
            table = _parsed(table)
        except ValueError as error:
            raise _unreadable(file, str(error)) from None
        # The split column is ignored: it must not move a test radiograph into the training data.
        tables.append(table.assign(split=file.stem))
    manifest = pd.concat(tables, ignore_index=True)
    manifest["path"] = [str((folder / path).absolute()) for path in manifest["path"]]
    return manifest


def _read_cells(file: Path) -> pd.DataFrame:
    """Returns the cells of a table as text without blanks around it; NaN where there is none."""
    import pandas as pd

    with warnings.catch_warnings():
        # Rows that end with a comma have a cell more than there are headings.
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        table = pd.read_csv(
            file,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            encoding_errors="surrogateescape",
        )
    table = table.rename(columns=str.strip).apply(lambda cells: cells.str.strip())
    return table.mask(table == "")


def _parsed(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with numbers and booleans instead of their text.

    Raises:
        ValueError: A cell is neither; the message names it.
    """
    import pandas as pd

    parsed = table.copy()
    for column in {"boneage", "male", "width", "height"} & set(table.columns):
        words = table[column].fillna("").str.lower()
        words = words.mask(words.isin(EMPTY_WORDS))
        if column == "male":
            parsed[column] = words.map(SEX_WORDS).astype("boolean")
        else:
            parsed[column] = pd.to_numeric(words, errors="coerce")
        if column == "boneage":
            parsed[column] = parsed[column].astype(float)
        wrong = words.notna() & parsed[column].isna()
        if wrong.any():
            what = "neither True nor False" if column == "male" else "no number"
            (first, *_) = table.loc[wrong, column]
            raise ValueError(f"{column} '{first}' is {what}")
    return parsed


def _unreadable(file: Path, reason: str) -> BoneageError:
    return BoneageError(
        f"{file}: cannot be read ({reason.splitlines()[0]}); 'boneage check-data --data "
        f"{file.parent}' names the cells, 'boneage fetch local' reads many other tables"
    )


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
    ages = manifest["boneage"].astype(float).dropna()
    if len(ages) >= _ENOUGH_AGES and 0 < ages.max() <= YEARS_AT_MOST:
        warnings.warn(
            f"known ages from {ages.min():g} to {ages.max():g} look like years; give months",
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
