"""Registration: maps every hand to one pose, with fingers upwards, thumb at the right, equal size.

The canonical frame has its origin at the capitate, x to the right and y downwards. Its unit is the
length of the hand, from the capitate to the tip of the middle finger, which is at (0, -1).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from boneage_cli.imaging.geometry import Box, Matrix
from boneage_cli.imaging.gray_levels import to_8_bits
from boneage_cli.imaging.hand_mask import hand_mask
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.warping import warp

Region = Literal["hand", "carpal", "metaph"]

# Regions in the canonical frame as (left, top, right, bottom). Chosen from the ossification boxes
# of 122 hands with manually placed key points, so that small and large hands have all bones inside:
# hand, the whole hand; carpal, carpal bones with the distal epiphyses of radius and ulna; metaph,
# metacarpals with the proximal phalanges.
REGIONS: dict[Region, Box] = {
    "hand": (-0.56, -1.06, 0.72, 0.42),
    "carpal": (-0.34, -0.33, 0.36, 0.37),
    "metaph": (-0.46, -0.86, 0.58, 0.10),
}
# Positions of the capitate and the middle fingertip in the canonical frame.
_CAPITATE = (0.0, 0.0)
_MIDDLE_TIP = (0.0, -1.0)
# Height in pixels at which the registered hand is segmented.
_MASK_HEIGHT = 256


def similarity(source: Points, target: Points, *, mirrored: bool = False) -> Matrix:
    """Fits a similarity transform (rotation, scale, shift, optionally mirrored) between points.

    Least squares; Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns", with mirroring given instead of estimated. Two points are matched exactly.

    Args:
        source: Points to transform, (N, 2), not all equal.
        target: Their targets, (N, 2).
        mirrored: Whether the transform includes a reflection (right hands are shown as left hands).

    Returns:
        Affine matrix, (2, 3): ``target ≈ matrix[:, :2] @ source + matrix[:, 2]``.

    Raises:
        ValueError: All source points coincide.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    # As complex numbers: rotation and scale are the phase and the modulus of the sum of
    # target · conjugate(source), divided by the source's spread; mirroring conjugates the source.
    moved, aimed = (source - source_mean) @ (1, 1j), (target - target_mean) @ (1, 1j)
    if mirrored:
        moved = moved.conj()
    spread = float((np.abs(moved) ** 2).sum())
    if spread < 1e-12:
        raise ValueError("the points fall together: no turn or size can be found")
    factor = (aimed * moved.conj()).sum() / spread
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    if mirrored:
        linear = linear @ np.diag((1.0, -1.0))
    return np.column_stack([linear, target_mean - linear @ source_mean])


def canonical_from_image(landmarks: Landmarks, aspect: float) -> Matrix:
    """Returns the transform from fractions of an image's width and height to the canonical frame.

    Capitate and middle fingertip determine rotation, scale and position; the thumb, which moves
    independently, only determines the mirroring. Least squares over all three points places the
    wrist less accurately (the centres of the wrist boxes spread by 0.020 of the hand's length with
    two points, 0.046 with three).

    Args:
        landmarks: The key points of the hand.
        aspect: Width of the image divided by its height, as it was taken.

    Returns:
        Affine matrix, (2, 3).

    Raises:
        ValueError: Capitate and middle fingertip coincide.
    """
    middle_tip, _, capitate = landmarks.in_units(aspect)
    matrix = similarity(
        np.array([capitate, middle_tip]),
        np.array([_CAPITATE, _MIDDLE_TIP]),
        mirrored=landmarks.is_mirrored(aspect),
    )
    return matrix * (aspect, 1.0, 1.0)


def region_box(region: Region, shape: float) -> Box:
    """Returns a region's box in the canonical frame as (left, top, right, bottom).

    Args:
        region: Name of the region.
        shape: Aspect ratio (width / height) to which the box in ``REGIONS`` is extended around its
            centre.
    """
    left, top, right, bottom = REGIONS[region]
    width, height = right - left, bottom - top
    wider, higher = max(height * shape - width, 0) / 2, max(width / shape - height, 0) / 2
    return left - wider, top - higher, right + wider, bottom + higher


def region_corners(landmarks: Landmarks, aspect: float, region: Region, shape: float) -> Points:
    """Returns the corners of a region in the image.

    Args:
        landmarks: The key points of the hand.
        aspect: Width of the image divided by its height, as it was taken.
        region: Name of the region.
        shape: Aspect ratio (width / height) of the region, see ``region_box``.

    Returns:
        Fractions of the image's width and height, (4, 2): the corners that are top left, top right,
        bottom right and bottom left in the registered hand. They may be outside the image.
    """
    left, top, right, bottom = region_box(region, shape)
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return apply_inverse(canonical_from_image(landmarks, aspect), box)


def apply_inverse(matrix: Matrix, points: Points) -> Points:
    """Applies the inverse of an affine transform, (2, 3), to points, (n, 2)."""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def frame_corners(frame: Matrix) -> Points:
    """Returns the corners of a frame in fractions of the radiograph, (4, 2).

    Args:
        frame: Affine matrix from fractions of the radiograph to fractions of the frame, (2, 3).

    Returns:
        The corners, clockwise from the frame's top left.
    """
    return apply_inverse(frame, np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]))


def render_region(
    radiograph: Radiograph,
    landmarks: Landmarks,
    region: Region,
    height: int,
    width: int,
    *,
    mask: np.ndarray | None = None,
    softness: float = 0.0,
    rounded: bool = True,
) -> np.ndarray:
    """Crops a region of the registered hand: fingers upwards, thumb at the right, aspect kept.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.
        region: Name of the region.
        height: Height of the result, pixels.
        width: Width of the result, pixels; the region is extended to this aspect ratio.
        mask: Mask of the hand from ``registered_mask``; all else becomes black. None to keep it.
        softness: As in ``warp``.
        rounded: As in ``warp``.

    Returns:
        uint8 (height, width), float32 if not rounded. Outside the radiograph it has the gray level
        of the radiograph's border, because black corners on a gray background would be conspicuous.

    Raises:
        ValueError: Capitate and middle fingertip coincide.
    """
    matrix = frame_from_image(radiograph, landmarks, region_box(region, width / height))
    pixels = warp(
        radiograph,
        matrix,
        height,
        width,
        border=_border_level(radiograph),
        softness=softness,
        rounded=rounded and mask is None,
    )
    if mask is None:
        return pixels
    pixels = pixels * _mask_of(mask, region, height, width)
    return to_8_bits(pixels) if rounded else pixels


def _border_level(radiograph: Radiograph) -> float:
    """Returns the median of the outermost pixels, 0–255."""
    pixels = radiograph.pixels
    outermost = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return float(np.median(outermost)) * 255 / radiograph.white


def registered_mask(radiograph: Radiograph, landmarks: Landmarks) -> np.ndarray | None:
    """Segments the hand in the region ``hand`` of the canonical frame.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.

    Returns:
        float32 (H, W), 1 on the hand and 0 outside it; None if the hand cannot be separated from
        the background.
    """
    left, top, right, bottom = REGIONS["hand"]
    rows, columns = _MASK_HEIGHT, round(_MASK_HEIGHT * (right - left) / (bottom - top))
    hand_frame = frame_from_image(radiograph, landmarks, REGIONS["hand"])
    pixels = warp(radiograph, hand_frame, rows, columns)
    to_pixels = np.array([columns, rows]) / (right - left, bottom - top)
    inside = (np.linspace((0, -0.55), (0, 0.1), 14) - (left, top)) * to_pixels
    tips = (landmarks.array()[:2] @ hand_frame[:, :2].T + hand_frame[:, 2]) * (columns, rows)
    return hand_mask(pixels, inside, tips)


def _mask_of(mask: np.ndarray, region: Region, height: int, width: int) -> np.ndarray:
    """Resamples the hand's mask to the pixels of a region."""
    left, top, right, bottom = REGIONS["hand"]
    to_pixels = np.array(mask.shape[::-1]) / (right - left, bottom - top)
    box = region_box(region, width / height)
    # From pixels of the region to pixels of the mask; integer coordinates are pixel centres.
    scale = np.array([(box[2] - box[0]) / width, (box[3] - box[1]) / height]) * to_pixels
    shift = (np.array(box[:2]) - (left, top)) * to_pixels + 0.5 * scale - 0.5
    return cv2.warpAffine(
        mask,
        np.column_stack([np.diag(scale), shift]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def frame_from_image(radiograph: Radiograph, landmarks: Landmarks, box: Box) -> Matrix:
    """Returns the transform from fractions of a radiograph to those of a canonical-frame box."""
    left, top, right, bottom = box
    matrix = canonical_from_image(landmarks, aspect_of(radiograph))
    size = np.array((right - left, bottom - top))
    return (matrix - ((0, 0, left), (0, 0, top))) / size[:, None]
