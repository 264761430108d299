"""Finds the hand's bounding box and range of intensities without a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from boneage_cli.imaging.radiograph import Radiograph

# The search runs on a small copy. Lengths below are in its pixels, other limits are fractions of
# its area or sides. They were tuned on 1,563 RSNA radiographs with marked fingertips and wrists:
# for 99.4 % all three points are inside the box found, widened by a twentieth.
_SIDE = 128
_LEVELS = np.linspace(0.15, 0.95, 12)

_AREA = (0.04, 0.65)
_WIDTH, _HEIGHT = 0.20, 0.25
_MIDDLE = 0.15  # smallest fraction of the central quarter that is hand
_HOLES = 1.25  # largest ratio of the outline's area to the bright area inside
_RECTANGULAR = 0.78  # largest fraction of its smallest rectangle; an exposed field fills it
_CONVEX = 0.90  # largest fraction of the convex hull
_TOUCHING = 0.90  # largest sum of the touched fractions of the image's sides
_SHARP = 0.7  # smallest gradient along the outline, relative to the sharpest outline

_THIN = 15
_BAR_RUN, _BAR_LENGTH, _BAR_THICKNESS = 0.20, 0.50, 5

_SQUARE_3 = np.ones((3, 3), np.uint8)
_SQUARE_5 = np.ones((5, 5), np.uint8)
_SQUARE_THIN = np.ones((_THIN, _THIN), np.uint8)


@dataclass(frozen=True)
class Foreground:
    """The hand in a radiograph.

    Attributes:
        box: Left, top, right and bottom of the hand as fractions of width and height.
        darkest: 1st percentile of the hand's intensities, in the radiograph's units.
        brightest: 99th percentile of the hand's intensities.
    """

    box: tuple[float, float, float, float]
    darkest: float
    brightest: float


@dataclass(frozen=True)
class _Candidate:
    area: int
    box: tuple[int, int, int, int]
    mask: np.ndarray
    sharpness: float


def find_foreground(radiograph: Radiograph) -> Foreground | None:
    """Finds the hand by its outline.

    Thresholds at several levels give bright regions; those that are too small, too rectangular (an
    exposed field), hollow (a cassette's frame) or off-centre (a marker) are discarded. The sharp
    outlines among the rest are the hand at different levels: their union gives its extent, and the
    largest of them its intensities.

    Args:
        radiograph: White bone on black; an inverted one has no foreground.

    Returns:
        The hand, or None if no region looks like one.
    """
    small = _small_copy(radiograph.pixels)
    height, width = small.shape
    surround = _surround(small)
    kept = small[surround == 0]
    if kept.size < _AREA[0] * small.size or kept.min() == kept.max():
        return None
    cleared = np.where(surround == 0, small, kept.min())
    # The square root gives the edge of a dim fingertip nearly the same weight as that of a wrist.
    roots = np.sqrt(cleared - kept.min())
    edges = cv2.blur(
        cv2.dilate(cv2.morphologyEx(roots, cv2.MORPH_GRADIENT, _SQUARE_3), _SQUARE_3), (3, 3)
    )
    candidates: list[_Candidate] = []
    for level in dict.fromkeys(_quantiles(kept, _LEVELS).tolist()):
        bright = cv2.threshold(cleared, level, 1, cv2.THRESH_BINARY)[1].astype(np.uint8)
        bright = _without_frame(cv2.morphologyEx(bright, cv2.MORPH_OPEN, _SQUARE_3))
        candidates += _hands(bright, edges)
    if not candidates:
        return None
    sharpest = max(candidate.sharpness for candidate in candidates)
    hands = [candidate for candidate in candidates if candidate.sharpness >= _SHARP * sharpest]
    boxes = np.array([hand.box for hand in hands])
    largest = max(hands, key=lambda hand: hand.area)
    darkest, brightest = _quantiles(small[largest.mask > 0], (0.01, 0.99))
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    box = (
        float(left / width),
        float(top / height),
        float(right / width),
        float(bottom / height),
    )
    return Foreground(box, float(darkest), float(brightest))


def centre_intensities(radiograph: Radiograph) -> tuple[float, float]:
    """Returns the 1st and 99th percentile of the middle three fifths of a radiograph."""
    small = _small_copy(radiograph.pixels)
    darkest, brightest = _quantiles(_middle(small, 0.2), (0.01, 0.99))
    return float(darkest), float(brightest)


def _small_copy(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    scale = _SIDE / max(height, width)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    pixels = pixels.astype(np.float32, copy=False)
    # Halving is much faster than one step to a size that does not divide the image's.
    while min(height, width) >= 2 * _SIDE:
        height, width = height // 2, width // 2
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.medianBlur(small, 3)


def _quantiles(values: np.ndarray, shares: Sequence[float] | np.ndarray) -> np.ndarray:
    # Not interpolated: a level is always a gray value of the image.
    return np.quantile(values, shares, method="lower")


def _middle(image: np.ndarray, margin: float) -> np.ndarray:
    height, width = image.shape
    down, across = int(margin * height), int(margin * width)
    return image[down : height - down, across : width - across]


def _surround(image: np.ndarray) -> np.ndarray:
    """Masks the surroundings of the exposed field where they are brighter than the field."""
    return cv2.dilate(_white_surround(image) | _gray_surround(image), _SQUARE_5)


def _white_surround(image: np.ndarray) -> np.ndarray:
    """Masks border regions that are brighter than the brightest bones: frames, bare detector."""
    height, width = image.shape
    (bones,) = _quantiles(_middle(image, 0.2), (0.97,))
    bright = (image > 1.2 * bones).astype(np.uint8)
    marked = np.zeros_like(bright)
    for outline in _outlines(bright):
        left, top, across, down = cv2.boundingRect(outline)
        at_border = left == 0 or top == 0 or left + across == width or top + down == height
        if at_border and max(across / width, down / height) >= 0.3:
            marked |= _inside(outline, bright)
    return marked


def _gray_surround(image: np.ndarray) -> np.ndarray:
    """Masks a uniform gray region around the image that is brighter than most of the rest."""
    none = np.zeros(image.shape, np.uint8)
    border = np.concatenate([image[1], image[-2], image[:, 1], image[:, -2]])
    level = np.median(border)
    darkest, middle, brightest = _quantiles(image, (0.01, 0.5, 0.99))
    tolerance = max(0.03 * (brightest - darkest), 1e-6)
    if middle > level + tolerance or np.mean(np.abs(border - level) < tolerance) < 0.4:
        return none
    _, labels = cv2.connectedComponents(
        (np.abs(image - level) < tolerance).astype(np.uint8), connectivity=4
    )
    outer = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    surround = np.isin(labels, outer[outer > 0])
    if not 0.05 <= surround.mean() <= 0.8 or np.median(image[~surround]) > level:
        return none
    return surround.astype(np.uint8)


def _without_frame(bright: np.ndarray) -> np.ndarray:
    """Removes thin bars: the cassette's edge, which often touches the wrist."""
    height, width = bright.shape
    thin = cv2.morphologyEx(bright, cv2.MORPH_TOPHAT, _SQUARE_THIN)
    for outline in _outlines(thin):
        if len(outline) < _BAR_RUN * min(height, width):
            continue
        box = cv2.boundingRect(outline)
        _, _, across, down = box
        is_bar = max(_touching(outline, box, bright.shape, 1)) >= _BAR_RUN
        if not is_bar and max(across / width, down / height) >= _BAR_LENGTH:
            area = cv2.countNonZero(_inside(outline, thin))
            is_bar = area <= _BAR_THICKNESS * np.hypot(across, down)
        if is_bar:
            bright = bright & ~_inside(outline, thin)
    return bright


def _hands(bright: np.ndarray, edges: np.ndarray) -> list[_Candidate]:
    """Returns the regions of one threshold that look like a hand."""
    height, width = bright.shape
    total = bright.size
    found = []
    for outline in _outlines(bright):
        box = cv2.boundingRect(outline)
        left, top, across, down = box
        if across < _WIDTH * width or down < _HEIGHT * height:
            continue
        # A contour runs through the centres of the border pixels and so excludes half of each.
        enclosed = cv2.contourArea(outline) + len(outline) / 2
        if not _AREA[0] * total <= enclosed <= _AREA[1] * _HOLES * total:
            continue
        touching = _touching(outline, box, bright.shape, 0)
        if sum(touching) > _TOUCHING or sum(side > 0.05 for side in touching) > 2:
            continue
        _, (long, short), _ = cv2.minAreaRect(outline)
        if enclosed > _RECTANGULAR * long * short:
            continue
        if enclosed > _CONVEX * cv2.contourArea(cv2.convexHull(outline)):
            continue
        mask = _inside(outline, bright)
        area = cv2.countNonZero(mask)
        if not _AREA[0] * total <= area <= _AREA[1] * total or enclosed > _HOLES * area:
            continue
        middle = _middle(mask, 0.25)
        if cv2.countNonZero(np.ascontiguousarray(middle)) < _MIDDLE * middle.size:
            continue
        sharpness = float(edges[outline[:, 0, 1], outline[:, 0, 0]].mean())
        found.append(_Candidate(area, (left, top, left + across, top + down), mask, sharpness))
    return found


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    return list(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])


def _inside(outline: np.ndarray, mask: np.ndarray) -> np.ndarray:
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED)
    return filled & mask


def _touching(
    outline: np.ndarray, box: Sequence[int], shape: tuple[int, int], reach: int
) -> list[float]:
    """Returns the fraction of each side of the image that an outline touches, within ``reach``."""
    height, width = shape
    left, top, across, down = box
    shares = [0.0] * 4
    if left <= reach:
        shares[0] = np.count_nonzero(outline[:, 0, 0] <= reach) / height
    if left + across >= width - reach:
        shares[1] = np.count_nonzero(outline[:, 0, 0] >= width - 1 - reach) / height
    if top <= reach:
        shares[2] = np.count_nonzero(outline[:, 0, 1] <= reach) / width
    if top + down >= height - reach:
        shares[3] = np.count_nonzero(outline[:, 0, 1] >= height - 1 - reach) / width
    return shares
