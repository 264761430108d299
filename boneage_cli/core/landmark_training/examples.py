"""Reads radiographs with hand-placed key points."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.datasets.drawn_hands import OLDEST, draw_hand
from boneage_cli.datasets.folders import radiographs_below
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.names import image_stem
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.imaging.warping import warp
from boneage_cli.progress import track

# One in this many ids is held out from training; the choice depends only on the id.
HELD_OUT = 7
# Longest side of images in memory, pixels; the network's input is smaller.
KEPT_SIDE = 384

BOX_COLUMNS = ("label", "xmin", "ymin", "xmax", "ymax")


# Largest coordinate, in widths or heights of the image.
_FARTHEST = 3.0


@dataclass(frozen=True)
class LandmarkExample:
    """One radiograph and its manual annotations.

    Attributes:
        id: Id of the radiograph.
        radiograph: 8 bits, no side longer than ``KEPT_SIDE``.
        landmarks: Its key points, None if they were not annotated.
        boxes: Rows of ``BOX_COLUMNS`` in fractions of width and height, None if there are none.
    """

    id: str
    radiograph: Radiograph
    landmarks: Landmarks | None
    boxes: pd.DataFrame | None

    @property
    def held_out(self) -> bool:
        """Whether the example is for evaluation only: it has boxes, or its id is held out."""
        digest = int(hashlib.sha256(self.id.encode()).hexdigest(), 16)
        return self.boxes is not None or digest % HELD_OUT == 0


def read_examples(
    keypoints: Path,
    *,
    images: Path | None = None,
    data: Path | None = None,
    native_size: Path | None = None,
    boxes: Path | None = None,
) -> list[LandmarkExample]:
    """Reads the radiographs that the tables name and that exist.

    Args:
        keypoints: CSV of ``id`` and ``<point>_x,<point>_y`` for the points of ``LANDMARK_NAMES``,
            fractions of width and height (as ``landmarks.csv`` of the demo data).
        images: A folder, searched recursively, with ``<id>.png`` or another image format.
        data: A data set's folder instead.
        native_size: CSV of ``id,width,height`` of the original radiographs, if the images were
            resized without keeping their aspect; None for the data set's own columns.
        boxes: CSV of ``id,label,xmin,ymin,xmax,ymax``, hand-drawn boxes round bones.

    Returns:
        One example per id with an image, in order of id.

    Raises:
        BoneageError: A table lacks a column, a point lacks a coordinate, or no id has an image.
    """
    point_columns = [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"]
    points = _placed(keypoints, point_columns)
    drawn: dict[str, pd.DataFrame] = {}
    if boxes is not None:
        table = _read_table(boxes, BOX_COLUMNS)
        drawn = {str(name): rows for name, rows in table.groupby("id")}
    if data is not None:
        manifest = read_manifest(data).set_index("id")
        paths = {str(name): Path(path) for name, path in manifest["path"].items()}
        sizes = manifest if {"width", "height"} <= set(manifest.columns) else None
    else:
        found = radiographs_below(images or Path())
        paths = {image_stem(path): Path(path) for path, error in found if error is None}
        sizes = None
    if native_size is not None:
        sizes = _read_table(native_size, ("width", "height")).set_index("id")
    wanted = sorted((set(points.index) | set(drawn)) & set(paths))
    if not wanted:
        raise BoneageError(
            f"{keypoints}: none of its {len(points)} ids has an image in {data or images or '.'}; "
            "name the folder with --images or the data set with --data"
        )
    examples = []
    for name in track(wanted, description="reading radiographs"):
        radiograph = read_radiograph(paths[name])
        if sizes is not None and name in sizes.index:
            width, height = sizes.loc[name, ["width", "height"]].to_numpy(float)
            if width > 0 and height > 0:
                radiograph = replace(radiograph, aspect=float(width / height))
        marked = None
        if name in points.index:
            marked = Landmarks.from_array(points.loc[name].to_numpy().reshape(3, 2))
        examples.append(LandmarkExample(name, shrink(radiograph), marked, drawn.get(name)))
    return examples


def drawn_examples(count: int, seed: int) -> list[LandmarkExample]:
    """Draws hands of random ages with their true key points; no radiograph has their ids."""
    examples = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        male = bool(number % 2)
        hand = draw_hand(float(rng.uniform(1, OLDEST.boys if male else OLDEST.girls)), male, rng)
        points = np.array([hand.landmarks[name] for name in LANDMARK_NAMES])
        examples.append(
            LandmarkExample(
                f"drawing {seed}-{number}",
                Radiograph(hand.pixels),
                Landmarks.from_array(points),
                None,
            )
        )
    return examples


def shrink(radiograph: Radiograph) -> Radiograph:
    """Returns the radiograph in 8 bits, reduced so that no side is longer than ``KEPT_SIDE``."""
    height, width = radiograph.pixels.shape
    factor = min(1.0, KEPT_SIDE / max(height, width))
    rows, columns = max(round(height * factor), 1), max(round(width * factor), 1)
    pixels = warp(radiograph, np.eye(2, 3), rows, columns)
    return Radiograph(pixels, source=radiograph.source, aspect=aspect_of(radiograph))


def _placed(path: Path, columns: list[str]) -> pd.DataFrame:
    """Reads the coordinates of key points by id, without rows that have none."""
    table = _read_table(path, columns).set_index("id")[columns]
    points = table.apply(pd.to_numeric, errors="coerce").astype(float)
    points = points[table.notna().any(axis=1)]
    wrong = points.index[~np.isfinite(points).all(axis=1) | points.index.duplicated()]
    if len(wrong):
        raise BoneageError(
            f"{path}: radiograph {wrong[0]} has no number in each of {', '.join(columns)}, or has "
            "two rows; correct or delete them"
        )
    # Beyond the image there are points of hands that are cut off, but none are far from it.
    if (points.abs() > _FARTHEST).any(axis=None):
        raise BoneageError(
            f"{path}: coordinates above {_FARTHEST:g}; give fractions of width and height, not "
            "pixels"
        )
    return points


def _read_table(path: Path, columns: tuple[str, ...] | list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise BoneageError(f"{path}: not a readable CSV ({error}); save it again as CSV") from None
    missing = [column for column in ("id", *columns) if column not in table.columns]
    if missing:
        raise BoneageError(
            f"{path}: no column {', '.join(missing)}; it needs id, {', '.join(columns)}"
        )
    return table
