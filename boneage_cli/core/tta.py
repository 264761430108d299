"""Test-time augmentation: a hand is as old in a mirror and slightly turned."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# Views that really differ from each other: (mirrored, degrees of turn).
VIEWS = ((False, 0.0), (True, 0.0), (False, 8.0), (True, -8.0))


def turned(pixels: Tensor, mirrored: bool, degrees: float) -> Tensor:
    """Mirrors and turns images about their centre.

    Args:
        pixels: Gray values 0…255, (B, 1, H, W).
        mirrored: Whether left and right are exchanged first.
        degrees: Of the turn, to the left; what comes in from outside is as its nearest pixel, as in
            training.

    Returns:
        The same shape; floating point where the images were turned.
    """
    if mirrored:
        pixels = pixels.flip(-1)
    if not degrees:
        return pixels
    height, width = pixels.shape[-2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor(
        [[cosine, -sine * height / width, 0], [sine * width / height, cosine, 0]],
        device=pixels.device,
    )
    grid = functional.affine_grid(
        matrix.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False
    )
    return functional.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
