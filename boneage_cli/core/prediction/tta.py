"""Test-time augmentation: averages over slightly rotated and mirrored images."""

from __future__ import annotations

import cv2
import numpy as np

from boneage_cli.core.config import AugmentationSettings

# Whether mirrored, and the rotation in degrees.
View = tuple[bool, float]

AS_IT_IS: View = (False, 0.0)


def tta_views(settings: AugmentationSettings) -> tuple[View, ...]:
    """Returns the views to average over; mirrored ones only if the network was trained with flips.

    All views differ from each other.
    """
    if settings.enabled and settings.flip:
        return (AS_IT_IS, (True, 0.0), (False, 8.0), (True, -8.0))
    return (AS_IT_IS, (False, 8.0), (False, -8.0))


def turned(pixels: np.ndarray, view: View) -> np.ndarray:
    """Mirrors images and rotates them about their centre.

    Pixels from outside the image are those of its border, as in training.

    Args:
        pixels: uint8 (B, H, W).
        view: Whether to mirror first, and the counterclockwise rotation in degrees.

    Returns:
        The same shape, uint8.
    """
    mirrored, degrees = view
    if mirrored:
        pixels = pixels[..., ::-1]
    if not degrees:
        return pixels
    height, width = pixels.shape[-2:]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.stack(
        [
            cv2.warpAffine(
                np.ascontiguousarray(image),
                matrix,
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for image in pixels
        ]
    )
