"""Finds the data set of a command: by its folder, by its name, or the only one there is."""

from __future__ import annotations

import difflib
from pathlib import Path

from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.errors import BoneageError


def find_dataset(data: Path | None = None) -> Path:
    """Finds the data set that a command works on.

    Args:
        data: The folder of a data set, or the name of one below ``data/``. None selects ``data/``
            itself if it holds a split's CSV, else the only data set below it; ``demo`` counts only
            if there is no other.

    Returns:
        A folder with at least one split's CSV.

    Raises:
        BoneageError: There is none, or there are several.
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
