"""Evaluation of key points and hand regions on upright, rotated and mirrored radiographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boneage_cli.batching import batched
from boneage_cli.core.landmarks import LandmarkLocator
from boneage_cli.core.regions.locators import KeyPointRegions, LocatedRegions, SalientPeaks
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.registration import Region
from boneage_cli.progress import track

# Quarter turns counter-clockwise, and whether the image is mirrored first.
POSES = {
    "upright": (0, False),
    "90°": (1, False),
    "180°": (2, False),
    "270°": (3, False),
    "mirrored": (0, True),
}
# The region that a hand-drawn box belongs to.
BOX_REGIONS: dict[str, Region] = {"Wrist": "carpal", "MCP": "metaph"}
# Images whose gradients fit into memory at a time.
_AT_ONCE = 16


@dataclass(frozen=True)
class KeyPointErrors:
    """Errors of key points over many hands, as fractions of the hand's length.

    Attributes:
        errors: (images, 3), in the order of ``LANDMARK_NAMES``.
        fallbacks: Number of hands that were not found.
    """

    errors: NDArray[np.float64]
    fallbacks: int

    def metrics(self) -> dict[str, float]:
        """Returns median, 95th percentile, share above 0.1, fallbacks, and each point's median."""
        medians = np.median(self.errors, axis=0)
        return {
            "images": len(self.errors),
            "median": float(np.median(self.errors)),
            "p95": float(np.percentile(self.errors, 95)),
            "above_0.1": float((self.errors > 0.1).mean()),
            "fallbacks": self.fallbacks,
            **{f"median_{name}": float(m) for name, m in zip(LANDMARK_NAMES, medians, strict=True)},
        }


def pose_radiograph(radiograph: Radiograph, pose: str) -> Radiograph:
    """Returns the radiograph in one of ``POSES``."""
    quarters, mirrored = POSES[pose]
    pixels = radiograph.pixels[:, ::-1] if mirrored else radiograph.pixels
    aspect = aspect_of(radiograph)
    return replace(
        radiograph,
        pixels=np.ascontiguousarray(np.rot90(pixels, quarters)),
        aspect=1 / aspect if quarters % 2 else aspect,
    )


def pose_points(points: Points, pose: str) -> Points:
    """Transforms points of the radiograph, (N, 2) fractions, to one of ``POSES``."""
    quarters, mirrored = POSES[pose]
    if mirrored:
        points = points * (-1, 1) + (1, 0)
    for _ in range(quarters):
        points = np.column_stack([points[:, 1], 1 - points[:, 0]])
    return points


def measure_key_points(
    locator: LandmarkLocator,
    radiographs: Sequence[Radiograph],
    truth: Sequence[Landmarks],
    pose: str = "upright",
) -> KeyPointErrors:
    """Finds the key points of posed radiographs and compares them with hand-placed ones.

    Args:
        locator: The key-point network.
        radiographs: Images not used in training.
        truth: Their key points in the stored pose.
        pose: One of ``POSES``.
    """
    located = locator.locate([pose_radiograph(image, pose) for image in radiographs])
    errors = []
    for radiograph, points, found in zip(radiographs, truth, located, strict=True):
        aspect = aspect_of(pose_radiograph(radiograph, pose))
        true = pose_points(points.array(), pose) * (aspect, 1)
        distance = np.linalg.norm(found.landmarks.in_units(aspect) - true, axis=1)
        errors.append(distance / np.linalg.norm(true[0] - true[2]))
    return KeyPointErrors(np.array(errors), sum(found.fallback for found in located))


def measure_regions(
    located: Sequence[LocatedRegions], boxes: Sequence[pd.DataFrame], pose: str = "upright"
) -> dict[str, float]:
    """Measures how many hand-drawn boxes have their centre inside the region they belong to.

    Args:
        located: The regions of posed radiographs that were not used in training.
        boxes: For each, rows of ``label,xmin,ymin,xmax,ymax`` in fractions of the stored image.
        pose: One of ``POSES``.

    Returns:
        The shares ``wrist_in_carpal`` and ``mcp_in_metaph``, and the numbers of boxes, ``…_boxes``.
    """
    shares: dict[str, float] = {}
    for label, region in BOX_REGIONS.items():
        hits: list[bool] = []
        for regions, table in zip(located, boxes, strict=True):
            rows = table[table["label"] == label]
            centres = np.column_stack(
                [(rows["xmin"] + rows["xmax"]) / 2, (rows["ymin"] + rows["ymax"]) / 2]
            )
            hits += inside(regions.corners[region], pose_points(centres, pose)).tolist()
        name = f"{label.lower()}_in_{region}"
        shares |= {name: sum(hits) / max(len(hits), 1), f"{name}_boxes": len(hits)}
    return shares


def inside(corners: Points, points: Points) -> NDArray[np.bool_]:
    """Tests which points are inside a convex quadrilateral.

    Args:
        corners: (4, 2), in clockwise or counter-clockwise order.
        points: (N, 2).

    Returns:
        (N,).
    """
    edges = np.roll(corners, -1, axis=0) - corners
    offsets = points[:, None, :] - corners
    sides = edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]
    return np.logical_or((sides >= 0).all(axis=1), (sides <= 0).all(axis=1))


def measure(
    locator: LandmarkLocator,
    radiographs: Sequence[Radiograph],
    truth: Sequence[Landmarks | None],
    boxes: Sequence[pd.DataFrame | None],
) -> dict[str, dict[str, float]]:
    """Evaluates key points and regions in every pose.

    Args:
        locator: The key-point network.
        radiographs: Images not used in training.
        truth: The key points of each, None if they are unknown.
        boxes: The hand-drawn boxes of each, None if there are none.

    Returns:
        By pose, the key points' ``metrics()`` and the shares ``wrist_in_carpal`` and
        ``mcp_in_metaph`` with their counts; metrics without ground truth are left out.
    """
    marked = [
        (image, points)
        for image, points in zip(radiographs, truth, strict=True)
        if points is not None
    ]
    boxed = [
        (image, table) for image, table in zip(radiographs, boxes, strict=True) if table is not None
    ]
    results: dict[str, dict[str, float]] = {}
    for pose in track(POSES, description="measuring", unit="pose"):
        row: dict[str, float] = {}
        if marked:
            images, points = zip(*marked, strict=True)
            row |= measure_key_points(locator, images, points, pose).metrics()
        if boxed:
            images, tables = zip(*boxed, strict=True)
            located = KeyPointRegions(locator).locate(
                [pose_radiograph(image, pose) for image in images]
            )
            row |= measure_regions(located, tables, pose)
        results[pose] = row
    return results


def measure_salient_peaks(
    peaks: SalientPeaks, radiographs: Sequence[Radiograph], boxes: Sequence[pd.DataFrame]
) -> dict[str, dict[str, float]]:
    """Evaluates the regions found by an age model's saliency, in every pose.

    Args:
        peaks: Finds the regions.
        radiographs: Images not used in training.
        boxes: The hand-drawn boxes of each.

    Returns:
        By pose, the number of ``images``, of ``fallbacks`` among them (a region was guessed), and
        the shares of boxes as in ``measure``.
    """
    results: dict[str, dict[str, float]] = {}
    for pose in track(POSES, description="measuring", unit="pose"):
        posed = (pose_radiograph(image, pose) for image in radiographs)
        located = [found for some in batched(posed, _AT_ONCE) for found in peaks.locate(some)]
        results[pose] = {
            "images": len(radiographs),
            "fallbacks": sum(regions.fallback for regions in located),
            **measure_regions(located, boxes, pose),
        }
    return results
