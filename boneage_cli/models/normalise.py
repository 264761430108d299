"""Normalisation of gray values to an encoder's input: the first layer of every network."""

from __future__ import annotations

from typing import get_args

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from boneage_cli.models.names import Normalisation, unknown_name

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

_FIXED: dict[str, Statistics] = {
    "half": ((0.5,), (0.5,)),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "unit": ((0.0,), (1.0,)),
}
NORMALISATIONS = get_args(Normalisation)


class Normalise(nn.Module):
    """Converts gray values 0…255 to the floating-point values and channels of an encoder.

    Args:
        kind: ``zscore`` (each image to mean 0 and standard deviation 1), ``half`` (-1…1),
            ``imagenet``, ``unit`` (0…1), or ``auto``: as the encoder's weights were trained.
        channels: Channels of the encoder's input; the gray channel is repeated.
        native: Mean and standard deviation per channel, for intensities 0…1, that ``auto`` uses;
            None for ``zscore``.

    Raises:
        ValueError: Unknown ``kind``.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, kind: str, channels: int, native: Statistics | None = None) -> None:
        super().__init__()
        if kind not in NORMALISATIONS:
            raise unknown_name("normalisation", kind, NORMALISATIONS)
        self.channels = channels
        statistics = native if kind == "auto" else _FIXED.get(kind)
        # Stored with the weights, so that a library update cannot change a trained network's input.
        self.register_buffer("mean", _per_channel(statistics[0], channels) if statistics else None)
        self.register_buffer("std", _per_channel(statistics[1], channels) if statistics else None)

    def forward(self, image: Tensor) -> Tensor:
        """Normalises images of shape (B, 1, H, W) to float32 of shape (B, channels, H, W)."""
        image = image.float()
        if self.mean is not None and self.std is not None:
            return (image - self.mean) / self.std
        mean = image.mean((1, 2, 3), keepdim=True)
        variance = (image - mean).square().mean((1, 2, 3), keepdim=True)
        # At least one gray level, so that a constant image becomes neither NaN nor amplified noise.
        return ((image - mean) / variance.clamp_min(1).sqrt()).expand(-1, self.channels, -1, -1)


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    tensor = torch.tensor(values) * 255
    if len(values) != channels:
        tensor = tensor.mean().expand(channels)
    return tensor.reshape(1, channels, 1, 1).clone()
