"""Contrast limited adaptive histogram equalisation.

Zuiderveld 1994, "Contrast limited adaptive histogram equalization", Graphics Gems IV: each tile's
histogram is clipped, its cumulative sum maps intensities, and the maps of neighbouring tiles are
interpolated.
"""

from __future__ import annotations

import cv2
import numpy as np

_BINS = 256
_STRIP = 64


def apply_clahe(pixels: np.ndarray, clip_limit: float, tiles: int, white: int) -> np.ndarray:
    """Equalises the local contrast of a radiograph.

    Args:
        pixels: Gray, (H, W), uint8 or uint16.
        clip_limit: The maximum slope of the intensity map; 1 leaves a tile almost unchanged.
        tiles: Number of tiles in each direction; at most the number of pixels.
        white: Intensity of full white; 255 for uint8.

    Returns:
        Pixels of the same shape, type and full white. An image in 8 bits and the same image in 16
        bits have the same result to within one 8-bit gray level.
    """
    rows, columns = pixels.shape
    across, down = min(tiles, columns), min(tiles, rows)
    if pixels.dtype == np.uint8:
        return cv2.createCLAHE(clip_limit, (across, down)).apply(pixels)
    return _clahe_16(pixels, clip_limit, across, down, white)


def _clahe_16(
    pixels: np.ndarray, clip_limit: float, across: int, down: int, white: int
) -> np.ndarray:
    # OpenCV uses 65,536 bins for 16-bit pixels: more than a tile has pixels, so the clipped
    # histogram is flat and the result useless. Here the tiles' maps have 256 bins, as for 8-bit
    # pixels, with interpolation between them.
    rows, columns = pixels.shape
    levels = np.minimum(pixels * np.float32(_BINS - 1) / np.float32(white), _BINS - 1)
    coarse = np.rint(levels).astype(np.uint8)
    if rows % down or columns % across:
        coarse = cv2.copyMakeBorder(
            coarse, 0, down - rows % down, 0, across - columns % across, cv2.BORDER_REFLECT_101
        )
    tall, wide = coarse.shape[0] // down, coarse.shape[1] // across
    maps = np.empty((down, across, _BINS + 1), np.float32)
    for row in range(down):
        for column in range(across):
            tile = coarse[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
            maps[row, column, :-1] = _intensity_map(tile, clip_limit)
    maps[..., -1] = maps[..., -2]

    left, right, to_right = _neighbours(columns, wide, across)
    above, below, to_below = _neighbours(rows, tall, down)
    result = np.empty_like(pixels)
    for start in range(0, rows, _STRIP):
        strip = slice(start, start + _STRIP)
        floor = levels[strip].astype(np.intp)
        part = levels[strip] - floor
        up, low, weight = above[strip, None], below[strip, None], to_below[strip, None]
        upper = _blend(
            _look_up(maps, up, left, floor, part), _look_up(maps, up, right, floor, part), to_right
        )
        lower = _blend(
            _look_up(maps, low, left, floor, part),
            _look_up(maps, low, right, floor, part),
            to_right,
        )
        result[strip] = np.rint(_blend(upper, lower, weight) * (white / (_BINS - 1)))
    return result


def _intensity_map(tile: np.ndarray, clip_limit: float) -> np.ndarray:
    """Returns the clipped, redistributed and cumulated histogram of a tile, as OpenCV does."""
    histogram = np.bincount(tile.ravel(), minlength=_BINS)
    limit = max(int(clip_limit * tile.size / _BINS), 1)
    excess = int(np.maximum(histogram - limit, 0).sum())
    histogram = np.minimum(histogram, limit) + excess // _BINS
    left_over = excess % _BINS
    if left_over:
        histogram[:: max(_BINS // left_over, 1)][:left_over] += 1
    return np.cumsum(histogram) * ((_BINS - 1) / tile.size)


def _neighbours(length: int, tile: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, per pixel along a side, the two nearest tiles and the weight of the second."""
    place = np.arange(length, dtype=np.float32) / tile - 0.5
    first = np.floor(place).astype(np.intp)
    return np.maximum(first, 0), np.minimum(first + 1, count - 1), place - first


def _look_up(
    maps: np.ndarray, row: np.ndarray, column: np.ndarray, floor: np.ndarray, part: np.ndarray
) -> np.ndarray:
    return _blend(maps[row, column, floor], maps[row, column, floor + 1], part)


def _blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return first + (second - first) * weight
