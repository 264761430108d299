"""Conversion of pixels of any depth to gray levels 0 to 255, unrounded or as uint8."""

from __future__ import annotations

import cv2
import numpy as np


def in_gray_levels(pixels: np.ndarray, white: int) -> np.ndarray:
    """Scales pixels of any depth to gray levels, without rounding.

    Args:
        pixels: Any shape.
        white: The intensity of full white.

    Returns:
        float32 of the same shape; full white is 255.
    """
    # Division, unlike multiplication by 1/257, is exact for 8-bit values widened to 16 bits.
    levels: np.ndarray = np.divide(pixels, np.float32(white / 255), dtype=np.float32)
    return levels


def to_8_bits(pixels: np.ndarray, black: float = 0.0, white: float = 255.0) -> np.ndarray:
    """Stretches, rounds and clips gray levels to 8 bits.

    Args:
        pixels: Gray, (H, W), float32.
        black: The gray level that becomes 0.
        white: The gray level that becomes 255.

    Returns:
        uint8 (H, W).
    """
    gain = 255 / (white - black)
    return cv2.addWeighted(pixels, gain, pixels, 0, -black * gain, dtype=cv2.CV_8U)
