"""The one table that every source of radiographs becomes.

A data set is a folder::

    train/ validation/ test/                  images
    train.csv validation.csv test.csv         id,path,boneage,male,split[,width,height,…]
    SOURCE.json                               where it came from

``path`` is relative to the folder, ``boneage`` is in months (empty where unknown), ``male`` is
True or False (empty where unknown). ``width`` and ``height`` are the size in pixels of the original
radiograph where the stored image was resized without keeping the aspect. ``patient`` is there where
the source names patients, so that no child is on both sides of a split.
"""

from __future__ import annotations

import difflib
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_cli.ages import is_bone_age
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import whole_file
from boneage_cli.sexes import sex_letter

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "path", "boneage", "male", "split")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".dcm", ".dicom")

# The RSNA challenge's test set: 100 boys, then 100 girls.
RSNA_TEST_IDS = range(4360, 4560)
# The first of them carries 168.93 months in the official labels and 164 in the integer re-exports.
RSNA_FIRST_OFFICIAL_MONTHS = 168.93
COLUMN_TYPES: dict[str, Any] = {
    "id": str,
    "path": str,
    "boneage": float,
    "male": "boolean",
    "split": str,
    "patient": str,
}


def write_manifest(manifest: pd.DataFrame, folder: Path) -> None:
    """Writes one CSV per split into a data set's folder; splits without rows get no file.

    Args:
        manifest: Rows with at least ``COLUMNS``; ``path`` relative to ``folder``.
        folder: The data set's folder.
    """
    extra = [column for column in manifest.columns if column not in COLUMNS]
    for split, rows in manifest.groupby("split", sort=False):
        with whole_file(folder / f"{split}.csv") as temporary:
            rows[[*COLUMNS, *extra]].to_csv(temporary, index=False)


def read_manifest(folder: Path, split: str | None = None) -> pd.DataFrame:
    """Reads the normalised table of a data set, or of one of its splits.

    Args:
        folder: The data set's folder.
        split: One of ``SPLITS``; None for all that are there.

    Returns:
        A table with ``COLUMNS`` (and width, height, patient where known): ``id`` str, ``path`` str
        made absolute, ``boneage`` float months, ``male`` nullable boolean, ``split`` str,
        which is the file's name.

    Raises:
        BoneageError: The folder holds no such table, or the table lacks a column, or a cell of it
            cannot be read.
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
            table = pd.read_csv(file, dtype=COLUMN_TYPES)
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
        # What stands in its cells must not bring a test radiograph among those that are learnt.
        tables.append(table.assign(split=file.stem))
    manifest = pd.concat(tables, ignore_index=True)
    manifest["path"] = [str((folder / path).absolute()) for path in manifest["path"]]
    return manifest


def _unreadable(file: Path, reason: str) -> BoneageError:
    return BoneageError(
        f"{file}: cannot be read ({reason.splitlines()[0]}); 'boneage check-data --data "
        f"{file.parent}' names the cells, 'boneage fetch local' reads many other tables"
    )


def true_aspects(manifest: pd.DataFrame) -> list[float | None]:
    """Width by height of each original radiograph, None where the manifest does not tell it."""
    if not {"width", "height"} <= set(manifest.columns):
        return [None] * len(manifest)
    ratios = manifest["width"].astype(float) / manifest["height"].astype(float)
    return [ratio if math.isfinite(ratio) and ratio > 0 else None for ratio in ratios]


def sex_letters(manifest: pd.DataFrame) -> list[str | None]:
    """The sex of each row as M or F; None where it is not known."""
    import pandas as pd

    return [None if pd.isna(male) else sex_letter(male) for male in manifest["male"]]


def find_dataset(data: Path | None = None) -> Path:
    """Finds the data set that a command works on.

    Args:
        data: The folder of a data set, or the name of one below ``data/``. With None it is
            ``data/`` itself if that holds a split's CSV, else the only data set below it; the drawn
            ``demo`` gives way to a single other one.

    Returns:
        A folder with at least one split's CSV.

    Raises:
        BoneageError: There is none, or there are several to choose from.
    """
    base = Path("data")
    if data is not None:
        for folder in (Path(data), base / data):
            if _is_dataset(folder):
                return folder
        there = [folder.name for folder in base.glob("*/") if _is_dataset(folder)]
        near = difflib.get_close_matches(str(data), there, n=1, cutoff=0.5)
        instead = "'boneage fetch --help' tells how to get one"
        way_out = f"did you mean {near[0]}?" if near else instead
        raise BoneageError(
            f"--data {data}: no data set here (a folder with train.csv, validation.csv or "
            f"test.csv); {way_out}"
        )
    if _is_dataset(base):
        return base
    found = sorted(folder for folder in base.glob("*/") if _is_dataset(folder))
    chosen = [folder for folder in found if folder.name != "demo"] or found
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise BoneageError(
            "no data set below data/; make one with 'boneage fetch demo' (drawings) or see "
            "'boneage fetch --help', or name its folder with --data"
        )
    names = ", ".join(folder.name for folder in found)
    raise BoneageError(f"several data sets below data/ ({names}); choose one with --data NAME")


def _is_dataset(folder: Path) -> bool:
    return any((folder / f"{split}.csv").is_file() for split in SPLITS)


def label_version(test: pd.DataFrame) -> str:
    """Names the version of a test split's labels, which every metric on it must state.

    Two versions of the RSNA test labels circulate; they differ by 2.78 months on average and by up
    to 26 on one radiograph, so figures on them must not be compared.

    Args:
        test: The rows of the test split, with ``id`` and ``boneage``.

    Returns:
        ``"official-decimal"`` (id 4360 is 168.93 months), ``"integer"`` (whole months throughout),
        ``"decimal"`` (decimals, but not RSNA's official ones), or ``"none"`` (nothing is labelled).
    """
    labelled = test[test["boneage"].notna()]
    if labelled.empty:
        return "none"
    rsna = labelled[labelled["id"].isin([str(number) for number in RSNA_TEST_IDS])]
    months = (labelled if rsna.empty else rsna)["boneage"].astype(float)
    if bool((months == months.round()).all()):
        return "integer"
    first = rsna.loc[rsna["id"] == str(RSNA_TEST_IDS[0]), "boneage"]
    is_official = bool(((first - RSNA_FIRST_OFFICIAL_MONTHS).abs() < 0.01).all())
    return "official-decimal" if is_official and not rsna.empty else "decimal"


def warn_of_impossible_ages(manifest: pd.DataFrame) -> None:
    """Warns of known bone ages that no child has, which count like the others all the same."""
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
