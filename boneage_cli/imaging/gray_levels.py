"""Gray levels of 8 bits, 0 to 255, out of pixels of any depth, and back to whole ones."""

from __future__ import annotations

import cv2
import numpy as np


def in_gray_levels(pixels: np.ndarray, maximum: int) -> np.ndarray:
    """Gray levels, unrounded: depth makes no difference.

    Args:
        pixels: Of any shape.
        maximum: The intensity of full white.

    Returns:
        float32 of that shape; full white is 255.
    """
    # Dividing, unlike multiplying by 1/257, is exact for 8-bit values that were widened to 16 bits.
    levels: np.ndarray = np.divide(pixels, np.float32(maximum / 255), dtype=np.float32)
    return levels


def to_8_bits(pixels: np.ndarray, black: float = 0.0, white: float = 255.0) -> np.ndarray:
    """Whole gray levels, clipped.

    Args:
        pixels: Gray, (H, W), float32.
        black: What becomes 0.
        white: What becomes 255.

    Returns:
        uint8 (H, W).
    """
    gain = 255 / (white - black)
    return cv2.addWeighted(pixels, gain, pixels, 0, -black * gain, dtype=cv2.CV_8U)
