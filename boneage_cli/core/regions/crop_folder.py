"""The files of a folder of crops: the table, the crops, and which of them belong to it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from boneage_cli.core.regions.locators import CROPPED
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file
from boneage_cli.imaging.landmarks import LANDMARK_NAMES

HEAT_MAPS = "heatmaps"
ROI_TABLE = "rois.csv"
SETTINGS = "rois.json"
COLUMNS = (
    "id",
    "path",
    "method",
    *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    *(f"{region}_{axis}{corner}" for region in CROPPED for corner in range(1, 5) for axis in "xy"),
    "confidence",
    "fallback",
    "error",
    "key",
)

Row = dict[str, str]
"""The cells of one radiograph by ``COLUMNS``."""


def claim(folder: Path) -> None:
    """Creates the folder; refuses one with another program's crops, since files are deleted."""
    if not (folder / SETTINGS).is_file() and any(
        (folder / name).is_dir() and any((folder / name).iterdir())
        for name in (*CROPPED, HEAT_MAPS)
    ):
        raise BoneageError(
            f"{folder}: holds crops that 'boneage locate-rois' did not make; choose another "
            "--output, or remove them"
        )
    folder.mkdir(parents=True, exist_ok=True)


def read_table(folder: Path) -> list[Row]:
    """Returns the rows of an earlier call; empty if there is no table with these columns."""
    try:
        with (folder / ROI_TABLE).open(
            encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return []
    return [row for row in rows if tuple(row) == COLUMNS and None not in row.values()]


def write_table(folder: Path, rows: Mapping[str, Row], order: Iterable[str]) -> None:
    """Writes the table, with the rows in an order of their names."""
    with (
        whole_file(folder / ROI_TABLE) as temporary,
        # File names may contain bytes that are not UTF-8; they are written unchanged.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in order if name in rows)


def remove_others(folder: Path, rows: Mapping[str, Row]) -> None:
    """Removes crops without a row: of other radiographs, or left by a killed call."""
    for name in (*CROPPED, HEAT_MAPS):
        for file in (folder / name).glob("*.png"):
            if file.stem not in rows:
                file.unlink(missing_ok=True)


def files_of(folder: Path, identity: str, with_picture: bool) -> list[Path]:
    """Returns the files of a radiograph: its crops, and perhaps the picture for checking them."""
    names = (*CROPPED, HEAT_MAPS) if with_picture else CROPPED
    return [file_of(folder, name, identity) for name in names]


def file_of(folder: Path, name: str, identity: str) -> Path:
    """Returns the file of a radiograph's crop, by region, or of its picture."""
    return folder / name / f"{identity}.png"
