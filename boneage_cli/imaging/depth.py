"""Which intensity is full white in pixels whose file names only the container's depth."""

from __future__ import annotations

import numpy as np

_DEPTHS = (8, 10, 12, 14)


def full_white(pixels: np.ndarray) -> int:
    """The intensity of full white in gray pixels.

    A 16-bit PNG or TIFF does not say how many of its bits carry the image. The smallest depth in
    use on digital radiography (8, 10, 12, 14 or 16 bits) that holds the brightest pixel is taken,
    so that an image reads the same whether it was stored in 8 bits, as those values in 16 bits, or
    in its detector's 12 bits. Pixels that are all multiples of 257 or all multiples of 256 are
    8-bit values widened to 16 bits, which is recognised however dark they are.

    Args:
        pixels: Intensities of any shape, uint8 or uint16.

    Returns:
        255, 1023, 4095, 16383 or 65535.
    """
    if pixels.dtype == np.uint8:
        return 255
    peak = int(pixels.max())
    if peak > 255 and not ((pixels % 257).any() and (pixels % 256).any()):
        return 65535
    return next((2**bits - 1 for bits in _DEPTHS if peak < 2**bits), 65535)
