"""Test-time augmentation: a hand is as old slightly turned, and in a mirror."""

from __future__ import annotations

import cv2
import numpy as np

from boneage_cli.core.config import AugmentationSettings

# Mirrored or not, and degrees of turn.
View = tuple[bool, float]

AS_IT_IS: View = (False, 0.0)


def tta_views(settings: AugmentationSettings) -> tuple[View, ...]:
    """The views to average over, for a network trained with such augmentation.

    They really differ from each other; mirrored hands are left to networks that saw some.
    """
    if settings.enabled and settings.flip:
        return (AS_IT_IS, (True, 0.0), (False, 8.0), (True, -8.0))
    return (AS_IT_IS, (False, 8.0), (False, -8.0))


def turned(pixels: np.ndarray, view: View) -> np.ndarray:
    """Mirrors and turns images about their centre.

    Args:
        pixels: uint8 (B, H, W).
        view: Whether left and right are exchanged first, and the degrees of the turn, to the left;
            what comes in from outside is as its nearest pixel, as in training.

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
