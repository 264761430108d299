"""Pooling layers: from feature maps to one vector per view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from boneage_cli.models.names import Pooling, unknown_name

POOLINGS = get_args(Pooling)

# Lower limit of features in the generalised mean, because its root needs positive numbers.
_GEM_FLOOR = 1e-6
# Widths and kernel sizes of the convolutions that compute the attention mask.
_SHALLOW = ((128, 1), (64, 1), (16, 1))
_DEEP = ((256, 1), (128, 3), (64, 1), (16, 1))


class AveragePool(nn.Module):
    """The mean over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pools feature maps of shape (B, C, h, w) to (B, C)."""
        return maps.mean((2, 3), dtype=torch.float32)


class GeM(nn.Module):
    """Generalised mean with a learnt exponent (Radenović et al. 2018, arXiv:1711.02512).

    Exponent 1 gives the mean of the positive parts; larger exponents approach the maximum.

    Args:
        exponent: Initial exponent.
    """

    def __init__(self, exponent: float = 3.0) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))

    def forward(self, maps: Tensor) -> Tensor:
        """Pools feature maps of shape (B, C, h, w) to (B, C)."""
        powers = maps.float().clamp_min(_GEM_FLOOR).pow(self.exponent).mean((2, 3))
        # Powers of the floor underflow at large exponents, and the root of 0 has no gradient.
        return powers.clamp_min(torch.finfo(torch.float32).tiny).pow(1 / self.exponent)


class SpatialAttention(nn.Module):
    """Mean over positions, weighted by an attention mask computed from the features.

    BoneAge's mask, after K. S. Mader's notebook: batch norm → convolutions → one value per
    position. There are two differences. BoneAge ends in tanh, whose sum, the divisor, can be zero;
    the sigmoid is the same curve rescaled to 0…1. And all positions share the last convolution, so
    that the layer takes images of any size.

    Args:
        channels: Channels of the feature maps.
        widths: Width and kernel size of each convolution.
    """

    def __init__(self, channels: int, widths: Sequence[tuple[int, int]] = _SHALLOW) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        layers: list[nn.Module] = []
        for width, kernel in widths:
            layers += [nn.Conv2d(channels, width, kernel, padding="same"), nn.ReLU(inplace=True)]
            channels = width
        self.mask = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Pools feature maps of shape (B, C, h, w) to (B, C)."""
        maps = self.norm(maps)
        mask = self.mask(maps).float().sigmoid()
        return (maps.float() * mask).sum((2, 3)) / mask.sum((2, 3))


def build_pooling(name: str, channels: int) -> nn.Module:
    """Makes a pooling layer.

    Args:
        name: One of ``POOLINGS``; ``flatten`` keeps every position as a separate feature.
        channels: Channels of the feature maps.

    Returns:
        A module from (B, channels, h, w) to (B, F).

    Raises:
        ValueError: Unknown name; the message suggests the nearest.
    """
    if name == "avg":
        return AveragePool()
    if name == "gem":
        return GeM()
    if name == "attention":
        return SpatialAttention(channels, _SHALLOW)
    if name == "attention_deep":
        return SpatialAttention(channels, _DEEP)
    if name == "flatten":
        return nn.Flatten()
    raise unknown_name("pooling", name, POOLINGS)
