"""Resampling of a radiograph by an affine transform."""

from __future__ import annotations

import math

import cv2
import numpy as np

from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.gray_levels import in_gray_levels, to_8_bits
from boneage_cli.imaging.radiograph import Radiograph, pixels_of


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

    If the result is coarser than the radiograph, it is smoothed first to avoid aliasing.

    Args:
        radiograph: Any size and depth.
        matrix: Affine matrix, (2, 3), from fractions of the radiograph's width and height to
            fractions of the result's.
        height: Height of the result, pixels.
        width: Width of the result, pixels.
        border: Gray level of the result outside the radiograph, 0–255.
        softness: Standard deviation of a Gaussian blur, fraction of the image's height.
        rounded: Whether to round to whole gray levels. A faint hand has few of them, so do not
            round before its contrast is stretched.

    Returns:
        uint8 (height, width), float32 in the same gray levels if not rounded.
    """
    source_height, source_width = radiograph.pixels.shape
    # In pixel indices, where 0 is the centre of the first pixel.
    linear = (
        np.diag((width, height)) @ matrix[:, :2] @ np.diag((1 / source_width, 1 / source_height))
    )
    shift = matrix[:, 2] * (width, height) + linear @ (0.5, 0.5) - 0.5
    inverse = np.linalg.inv(linear)
    # Source pixels per pixel of the result, along the source's two axes.
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
    # In pixels, horizontally and vertically, of the radiograph and then of its halved copies.
    soft = np.array(pixels_of(radiograph, softness))
    # Strong reduction begins with area-averaging halvings, which cost a tenth of the smoothing.
    while min(step_x, step_y) >= 4 and min(pixels.shape) >= 2:
        rows, columns = (side // 2 for side in pixels.shape)
        # Odd last rows and columns are dropped: sides that halve evenly take a 40th of the time.
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
        borderValue=border * radiograph.white / 255,
    )
    result = in_gray_levels(result, radiograph.white)
    return to_8_bits(result) if rounded else result
