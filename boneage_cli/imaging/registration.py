"""Every hand in one pose: fingers upwards, thumb at the right, one size, whatever the image.

The canonical frame has its origin at the capitate, x to the right, y downwards, and 1 is the length
of the hand, from the capitate to the tip of the middle finger (here at (0, -1)).
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_cli.imaging.gray_levels import in_gray_levels, to_8_bits
from boneage_cli.imaging.hand_mask import hand_mask
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph

Matrix = NDArray[np.float64]
Region = Literal["hand", "carpal", "metaph"]

# Regions in the canonical frame as (left, top, right, bottom). Set on the ossification boxes of 122
# hands with hand-placed key points, so that a region's bones are whole in small and large hands:
# carpal bones with the distal epiphyses of radius and ulna; metacarpals with the
# proximal phalanges; all of it.
REGIONS: dict[Region, tuple[float, float, float, float]] = {
    "hand": (-0.56, -1.06, 0.72, 0.42),
    "carpal": (-0.34, -0.33, 0.36, 0.37),
    "metaph": (-0.46, -0.86, 0.58, 0.10),
}
# Where the capitate and the tip of the middle finger are in the canonical frame.
CAPITATE = (0.0, 0.0)
MIDDLE_TIP = (0.0, -1.0)
# Rows of the registered hand in which the background is told from the hand.
_MASK_HEIGHT = 256


def similarity(source: Points, target: Points, *, mirrored: bool = False) -> Matrix:
    """The turn, size, shift and, if asked for, mirror that bring points closest to others.

    Least squares; Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns", with the mirror given instead of chosen. Two points are met exactly.

    Args:
        source: Points to move, (N, 2), not all in one place.
        target: Where to, (N, 2).
        mirrored: Whether the transform turns left hands into right ones.

    Returns:
        Affine matrix, (2, 3): ``target ≈ matrix[:, :2] @ source + matrix[:, 2]``.

    Raises:
        ValueError: The points all fall together.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    # As complex numbers: the best turn is the phase, and the best size the modulus, of the sum of
    # target · conjugate(source); a mirror conjugates the source first.
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
    """The transform from fractions of an image's width and height to the canonical frame.

    Capitate and middle fingertip fix turn, size and place; the thumb, which moves by itself, only
    says on which side it is. Least squares over all three points puts the wrist less well (the
    centres of the wrist boxes spread by 0.020 of the hand's length with two points, 0.046 with
    three).

    Args:
        landmarks: The key points of the hand.
        aspect: Width of the image divided by its height, as it was taken.

    Returns:
        Affine matrix, (2, 3).

    Raises:
        ValueError: Capitate and middle fingertip fall together.
    """
    middle_tip, _, capitate = landmarks.in_units(aspect)
    matrix = similarity(
        np.array([capitate, middle_tip]),
        np.array([CAPITATE, MIDDLE_TIP]),
        mirrored=landmarks.is_mirrored(aspect),
    )
    return matrix * (aspect, 1.0, 1.0)


def region_box(region: Region, shape: float | None = None) -> tuple[float, float, float, float]:
    """A region in the canonical frame as (left, top, right, bottom).

    Args:
        region: Which.
        shape: Width divided by height that the box must have; it is then made wider or higher
            round its centre. None leaves it as it is in ``REGIONS``.
    """
    left, top, right, bottom = REGIONS[region]
    width, height = right - left, bottom - top
    if shape is not None:
        wider, higher = max(height * shape - width, 0) / 2, max(width / shape - height, 0) / 2
        left, top, right, bottom = left - wider, top - higher, right + wider, bottom + higher
    return left, top, right, bottom


def region_corners(
    landmarks: Landmarks, aspect: float, region: Region, shape: float | None = None
) -> Points:
    """Where a region is in the image.

    Args:
        landmarks: The key points of the hand.
        aspect: Width of the image divided by its height, as it was taken.
        region: Which.
        shape: Width divided by height of the region, see ``region_box``.

    Returns:
        Fractions of the image's width and height, (4, 2): the corners that are top left, top right,
        bottom right and bottom left once the hand is registered. They may lie outside the image.
    """
    left, top, right, bottom = region_box(region, shape)
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return apply_inverse(canonical_from_image(landmarks, aspect), box)


def apply_inverse(matrix: Matrix, points: Points) -> Points:
    """Where points, (n, 2), were before an affine transform, (2, 3)."""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def frame_corners(frame: Matrix) -> Points:
    """The corners of what a frame shows, in fractions of the radiograph, (4, 2).

    Args:
        frame: From fractions of the radiograph to fractions of what is shown, (2, 3).

    Returns:
        Clockwise from the one that becomes the top left.
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
    """Cuts a region from the registered hand: fingers upwards, thumb at the right, aspect kept.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.
        region: Which.
        height: Of the result, pixels.
        width: Of the result, pixels; the region is widened or heightened to this shape.
        mask: The hand, as ``registered_mask`` gives it: all else becomes black. None to keep it.
        softness: As in ``warp``.
        rounded: As in ``warp``.

    Returns:
        uint8 (height, width), float32 if not rounded; where the region reaches beyond the
        radiograph it goes on in the level of the radiograph's border: black corners on a gray
        background would stand out.

    Raises:
        ValueError: Capitate and middle fingertip fall together.
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
    """The median of the outermost pixels, 0–255."""
    pixels = radiograph.pixels
    outermost = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return float(np.median(outermost)) * 255 / radiograph.maximum


def registered_mask(radiograph: Radiograph, landmarks: Landmarks) -> np.ndarray | None:
    """Where the hand is in the region ``hand`` of its registered frame.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.

    Returns:
        Float32 (H, W), 1 on the hand and 0 off it; None where the hand's outline cannot be told
        from the background.
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
    """The hand's mask in the pixels of a region."""
    left, top, right, bottom = REGIONS["hand"]
    to_pixels = np.array(mask.shape[::-1]) / (right - left, bottom - top)
    box = region_box(region, width / height)
    # From pixels of the region to pixels of the mask, both by their centres.
    scale = np.array([(box[2] - box[0]) / width, (box[3] - box[1]) / height]) * to_pixels
    shift = (np.array(box[:2]) - (left, top)) * to_pixels + 0.5 * scale - 0.5
    return cv2.warpAffine(
        mask,
        np.column_stack([np.diag(scale), shift]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def frame_from_image(
    radiograph: Radiograph, landmarks: Landmarks, box: tuple[float, float, float, float]
) -> Matrix:
    """The transform from fractions of a radiograph to fractions of a box of the canonical frame."""
    left, top, right, bottom = box
    matrix = canonical_from_image(landmarks, aspect_of(radiograph))
    size = np.array((right - left, bottom - top))
    return (matrix - ((0, 0, left), (0, 0, top))) / size[:, None]


def is_negative(radiograph: Radiograph, landmarks: Landmarks) -> bool:
    """Whether the hand is darker than what lies beside it: black bone on white.

    Compares the median of the palm with those of two narrow strips beside wrist and forearm; where
    the field is collimated, what lies farther off may be bright in a positive too.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.
    """
    matrix = canonical_from_image(landmarks, aspect_of(radiograph))
    palm, *beside = (
        _sampled(radiograph, matrix, box)
        for box in ((-0.10, -0.40, 0.20, 0.10), (-0.38, 0.0, -0.24, 0.2), (0.24, 0.1, 0.36, 0.3))
    )
    levels = [np.median(strip) for strip in beside if strip.size]
    return bool(palm.size and levels and np.median(palm) < min(levels))


def _sampled(
    radiograph: Radiograph, matrix: Matrix, box: tuple[float, float, float, float]
) -> np.ndarray:
    """The pixels at a grid of points in a box of the canonical frame, as far as there are any."""
    left, top, right, bottom = box
    grid = np.stack(np.meshgrid(np.linspace(left, right, 16), np.linspace(top, bottom, 16)), -1)
    places = apply_inverse(matrix, grid.reshape(-1, 2))
    inside = places[((places >= 0) & (places < 1)).all(1)]
    height, width = radiograph.pixels.shape
    columns, rows = (inside * (width, height)).astype(int).T
    return radiograph.pixels[rows, columns]


def aspect_of(radiograph: Radiograph) -> float:
    """Width divided by height of the radiograph as it was taken."""
    height, width = radiograph.pixels.shape
    return radiograph.aspect or width / height


def pixels_of(radiograph: Radiograph, share: float) -> tuple[float, float]:
    """How many stored pixels across and down a length takes that is a share of the true height."""
    height, width = radiograph.pixels.shape
    return share * width / aspect_of(radiograph), share * height


def warp(
    radiograph: Radiograph,
    matrix: Matrix,
    height: int,
    width: int,
    *,
    border: float = 0.0,
    softness: float = 0.0,
    rounded: bool = True,
) -> np.ndarray:
    """Resamples a radiograph once, from its stored pixels.

    Where the result is coarser than the radiograph it is smoothed first, so that nothing aliases.

    Args:
        radiograph: Any size and depth.
        matrix: (2, 3), from fractions of the radiograph's width and height to fractions of the
            result's.
        height: Of the result, pixels.
        width: Of the result, pixels.
        border: Gray level of the result outside the radiograph, 0–255.
        softness: Standard deviation of a Gaussian to smooth by, fraction of the image's height.
        rounded: Whether to whole gray levels. A faint hand whose contrast is yet to be stretched
            has few of them.

    Returns:
        uint8 (height, width), float32 in the same gray levels if not rounded.
    """
    source_height, source_width = radiograph.pixels.shape
    # Of pixel indices, whose 0 is the centre of the first pixel.
    linear = (
        np.diag((width, height)) @ matrix[:, :2] @ np.diag((1 / source_width, 1 / source_height))
    )
    shift = matrix[:, 2] * (width, height) + linear @ (0.5, 0.5) - 0.5
    inverse = np.linalg.inv(linear)
    # Pixels of the source per pixel of the result, along the source's two axes.
    step_x, step_y = np.linalg.norm(inverse, axis=1)
    corners = np.array([(-1, -1), (width, -1), (width, height), (-1, height)])
    corners = (corners - shift) @ inverse.T
    margin = np.ceil((3 * step_x + 3, 3 * step_y + 3))
    left, top = np.maximum(np.floor(corners.min(0) - margin), 0).astype(int)
    right, bottom = np.ceil(corners.max(0) + margin).astype(int)
    cut = radiograph.pixels[top : max(bottom, 0), left : max(right, 0)]
    if not cut.size:
        empty = np.full((height, width), border, np.float32)
        return to_8_bits(empty) if rounded else empty
    pixels: np.ndarray = cut
    shift = shift + linear @ (left, top)
    # In pixels across and down, of the radiograph and then of its halves.
    soft = np.array(pixels_of(radiograph, softness))
    # Strong reduction begins with halvings, which average areas and cost a tenth of the smoothing.
    while min(step_x, step_y) >= 4 and min(pixels.shape) >= 2:
        rows, columns = (side // 2 for side in pixels.shape)
        # Without an odd last row or column: sides that halve evenly take a fortieth of the time.
        pixels = cv2.resize(
            pixels[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA
        )
        shift, linear = shift + linear @ (0.5, 0.5), 2 * linear
        step_x, step_y, soft = step_x / 2, step_y / 2, soft / 2
    pixels = pixels.astype(np.float32)
    smoothing = [
        math.hypot(0.45 * math.sqrt(max(step**2 - 1, 0)), sigma)
        for step, sigma in zip((step_x, step_y), soft, strict=True)
    ]
    if max(smoothing) > 0.3:
        pixels = cv2.GaussianBlur(
            pixels, (0, 0), max(smoothing[0], 1e-3), sigmaY=max(smoothing[1], 1e-3),
            borderType=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    result = cv2.warpAffine(
        pixels,
        np.column_stack([linear, shift]),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border * radiograph.maximum / 255,
    )
    result = in_gray_levels(result, radiograph.maximum)
    return to_8_bits(result) if rounded else result
