"""Segments the hand from the background in a registered image."""

from __future__ import annotations

import cv2
import numpy as np

from boneage_cli.imaging.landmarks import Points

# Smoothing before thresholding, and the margin kept around the hand, as fractions of the height.
_BLUR = 0.006
_MARGIN = 0.012
# Structures thinner than this fraction of the height are not fingers.
_THIN = 0.03
_LEVELS = np.linspace(0.30, 0.90, 16)
# The largest fractions of the registered frame and of its own convex hull that a hand fills; an
# exposed field fills more.
_LARGEST = 0.55
_MOST_CONVEX = 0.92
# Largest fraction of the frame's upper, left and right sides that the hand may touch.
_TOUCHING = 0.15


def hand_mask(pixels: np.ndarray, inside: Points, tips: Points) -> np.ndarray | None:
    """Segments the hand in a registered image by its outline.

    Thresholds at several levels give regions around the palm. The hand is the region with the
    sharpest outline among those that do not touch the sides; reaching the fingertips counts, too.

    Args:
        pixels: uint8 (H, W), fingers upwards; white bone on black.
        inside: Points known to be on the hand, (N, 2) pixels.
        tips: Fingertips that the hand should reach, (N, 2) pixels.

    Returns:
        float32 (H, W), 1 on the hand and 0 outside it with a soft edge; None if no region fits.
    """
    height = pixels.shape[0]
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), _BLUR * height + 0.5)
    roots = np.sqrt(smooth)
    edges = cv2.morphologyEx(roots, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    seeds = _indices(inside, pixels.shape)
    ends = _indices(tips, pixels.shape)
    reach = _disc(0.06 * height)
    near = [_window(row, column, reach, pixels.shape) for row, column in zip(*ends, strict=True)]
    # Opening separates the wrist from the thin edges of cassette and field. Opening the gray image
    # once is equivalent to opening at each threshold.
    opened = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, _disc(_THIN * height))
    best, sharpest = None, 0.0
    brightest = float(np.median(smooth[seeds]))
    # Whole images are processed by OpenCV, which releases the interpreter lock.
    for level in np.unique(np.quantile(smooth, _LEVELS)):
        if level >= brightest:
            break
        _, bright = cv2.threshold(opened, float(level), 1, cv2.THRESH_BINARY)
        _, labels = cv2.connectedComponents(bright.astype(np.uint8), connectivity=4)
        found = np.bincount(labels[seeds])
        found[0] = 0
        palm = int(found.argmax())
        region = cv2.inRange(labels, palm, palm) // 255
        if found[palm] < 0.8 * len(seeds[0]) or cv2.countNonZero(region) > _LARGEST * region.size:
            continue
        if region[:, [0, -1]].mean() + region[0].mean() > _TOUCHING:
            continue
        contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        contour = max(contours, key=cv2.contourArea)
        if cv2.contourArea(contour) > _MOST_CONVEX * cv2.contourArea(cv2.convexHull(contour)):
            continue
        reached = float(np.mean([(region[place] & disc).any() for place, disc in near]))
        outline = cv2.morphologyEx(region, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        sharpness = cv2.mean(edges, outline)[0] * (0.25 + reached)
        if sharpness > sharpest:
            best, sharpest = region, sharpness
    if best is None:
        return None
    outlines, _ = cv2.findContours(best, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(best)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    grown = cv2.dilate(filled, _disc(2 * _MARGIN * height))
    return cv2.GaussianBlur(grown.astype(np.float32), (0, 0), 0.5 * _MARGIN * height)


def _disc(diameter: float) -> np.ndarray:
    side = 2 * round(diameter / 2) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _window(
    row: int, column: int, disc: np.ndarray, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Returns the slices of an image that a disc around a pixel covers, and that part of it."""
    half = disc.shape[0] // 2
    top, left = max(row - half, 0), max(column - half, 0)
    place = slice(top, min(row + half + 1, shape[0])), slice(left, min(column + half + 1, shape[1]))
    rows, columns = (
        slice(each.start - middle + half, each.stop - middle + half)
        for each, middle in zip(place, (row, column), strict=True)
    )
    return place, disc[rows, columns]


def _indices(points: Points, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    column, row = np.floor(points).astype(int).T
    return np.clip(row, 0, shape[0] - 1), np.clip(column, 0, shape[1] - 1)
