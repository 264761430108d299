"""Refuses radiographs that do not show exactly one whole hand, judged by their key points.

Out-of-distribution images are refused by the model's ``Likeness``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boneage_cli.core.landmarks import LandmarkLocator, Located
from boneage_cli.imaging.landmarks import Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of, negative
from boneage_cli.imaging.registration import canonical_from_image, frame_corners, frame_from_image

# Confidence of the key points below which there is no hand. Of 600 RSNA radiographs not used for
# training, 99.5 % have more than 0.98; of 33 photographs, textures and other scans the maximum is
# 0.89.
SURE = 0.92
# Least distance from the middle fingertip to the image's edge, in hand lengths; the network places
# the tips of cut fingers beyond the edge. 0.2 % of 600 whole hands have less, and 99.5 % of 200
# hands that lack an eighth of their length.
LEAST_ABOVE_FINGERTIP = -0.02
# The same from the capitate's centre down the forearm, up to the end of the radius's epiphysis.
LEAST_BELOW_CAPITATE = 0.14
# Range of the thumb's tip in registered hands, (x, y) minimum and maximum; 1,563 hand-marked ones
# lie at 0.23 to 0.73 and -1.09 to -0.11.
_THUMB = np.array(((0.13, -1.15), (0.83, -0.03)))

# Extent of a hand in the canonical frame, (left, top, right, bottom).
_HAND = (-0.45, -1.05, 0.55, 0.25)
# Least fraction of the image that must be free on one side of the hand for a second one; in 60
# pairs of radiographs side by side it is at least 0.32.
LEAST_BESIDE = 0.3
# Confidence above which a second hand is assumed. It is exceeded for 159 of 160 other pairs at
# every rotation by 90 degrees; beside 4,241 single hands the maximum was 0.88 (2026-11-23).
SURE_OF_ANOTHER = 0.96


def is_blank(radiograph: Radiograph) -> bool:
    """Whether all pixels are equal, so that the image contains nothing."""
    pixels = radiograph.pixels
    few = pixels[::16, ::16]
    return bool(few.min() == few.max() and pixels.min() == pixels.max())


def reason_of_key_points(radiograph: Radiograph, located: Located) -> str | None:
    """Returns why the key points do not show a whole hand, a code of ``cases.REASONS``, or None."""
    aspect = aspect_of(radiograph)
    if located.confidence < SURE or located.fallback:
        return "no-hand"
    matrix = canonical_from_image(located.landmarks, aspect)
    thumb = matrix[:, :2] @ located.landmarks.array()[1] + matrix[:, 2]
    if not ((_THUMB[0] <= thumb) & (thumb <= _THUMB[1])).all():
        return "no-hand"
    # Measured from a point inside the finger, because its tip may lie outside the image.
    above = _room(matrix, np.array((0.0, -0.8)), np.array((0.0, -1.0))) - 0.2
    if above < LEAST_ABOVE_FINGERTIP:
        return "fingers-cut-off"
    if _room(matrix, np.array((0.0, 0.0)), np.array((0.0, 1.0))) < LEAST_BELOW_CAPITATE:
        return "wrist-cut-off"
    return None


def has_another_hand(radiograph: Radiograph, located: Located, locator: LandmarkLocator) -> bool:
    """Whether there is a second hand on a radiograph, in the same orientation as the first.

    Args:
        radiograph: White bone on black.
        located: The key points of the first hand.
        locator: The key-point network.
    """
    beside = _beside(radiograph, located)
    if beside is None:
        return False
    middle_tip, _, capitate = located.landmarks.in_units(aspect_of(radiograph))
    across, down = middle_tip - capitate
    # Fingers upwards, to the left, downwards, to the right.
    quarters = int(np.argmax((-down, -across, down, across)))
    return locator.sureness(beside, quarters) > SURE_OF_ANOTHER


def _beside(radiograph: Radiograph, located: Located) -> Radiograph | None:
    """The largest part of a radiograph on one side of its hand; None if too small for another."""
    corners = frame_corners(frame_from_image(radiograph, located.landmarks, _HAND))
    (left, top), (right, bottom) = corners.min(0).clip(0, 1), corners.max(0).clip(0, 1)
    parts = np.array([(0, 0, left, 1), (right, 0, 1, 1), (0, 0, 1, top), (0, bottom, 1, 1)])
    shares = (parts[:, 2] - parts[:, 0]) * (parts[:, 3] - parts[:, 1])
    if shares.max() < LEAST_BESIDE:
        return None
    height, width = radiograph.pixels.shape
    ends = parts[shares.argmax()] * (width, height, width, height)
    x0, y0, x1, y1 = np.round(ends).astype(int)
    radiograph = negative(radiograph) if located.inverted else radiograph
    part = np.ascontiguousarray(radiograph.pixels[y0:y1, x0:x1])
    proportion = aspect_of(radiograph) * (x1 - x0) / (y1 - y0) * height / width
    return replace(radiograph, pixels=part, aspect=float(proportion))


def _room(matrix: np.ndarray, start: Points, direction: Points) -> float:
    """Distance from a point of the canonical frame to the image's edge, hand lengths; or -1."""
    inverse = np.linalg.inv(matrix[:, :2])
    place = inverse @ (start - matrix[:, 2])
    step = inverse @ direction
    if (place < 0).any() or (place > 1).any():
        return -1.0
    with np.errstate(divide="ignore"):
        ends = np.where(step > 0, (1 - place) / step, -place / step)
    return float(np.min(ends[np.abs(step) > 1e-12]))
