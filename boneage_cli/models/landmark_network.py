"""A small network that predicts one heat map per key point of the hand."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

BACKBONE = "tf_efficientnet_lite0"
# Cells on each side of a peak over which the point is averaged: a window of 5 × 5.
_WINDOW = 2
# Number of key points, and channels of the decoder.
_POINTS, _WIDTH = 3, 96
# Standard deviation, in cells, of the Gaussian target around a true point.
_SPREAD = 0.8


class LandmarkNetwork(nn.Module):
    """EfficientNet-Lite0 to stride 16, upsampled to stride 8, with one heat map per point."""

    def __init__(self) -> None:
        super().__init__()
        encoder: Any = timm.create_model(
            BACKBONE, pretrained=False, features_only=True, out_indices=(2, 3), in_chans=1
        )
        # The blocks after stride 16 are not used.
        del encoder.blocks[5:]
        shallow, deep = encoder.feature_info.channels()
        self.encoder: nn.Module = encoder
        # Seven cells of stride 16 wide, to tell a fingertip from others by the surrounding hand.
        self.context = nn.Sequential(
            nn.Conv2d(deep, _WIDTH, 1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _WIDTH, 7, padding=3, groups=_WIDTH, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _WIDTH, 1),
        )
        self.lateral = nn.Conv2d(shallow, _WIDTH, 1)
        self.head = nn.Sequential(
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _WIDTH, 5, padding=2, groups=_WIDTH, bias=False),
            nn.Conv2d(_WIDTH, _WIDTH, 1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _POINTS, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns heat maps before the softmax.

        Args:
            pixels: Intensities of any scale, (N, 1, S, S), S a multiple of 16. Each image is
                standardised to its own mean and standard deviation, which removes differences in
                exposure.

        Returns:
            (N, points, S / 8, S / 8).
        """
        pixels = pixels.float()
        deviation, mean = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True)
        shallow, deep = self.encoder((pixels - mean) / (deviation + 1e-3))
        up = functional.interpolate(
            self.context(deep), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return self.head(up + self.lateral(shallow))


def peaks(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the points in heat maps, and their confidence.

    Args:
        logits: Heat maps before the softmax, (N, points, H, W).

    Returns:
        The points as (x, y), fractions of width and height, (N, points, 2): the centre of mass in
        the window around each peak. And their confidence, (N, points): the fraction of the
        probability in that window, 1 for a single sharp peak.
    """
    height, width = logits.shape[-2:]
    heat = logits.float().flatten(2).softmax(-1)
    row, column = _cells(height, width, logits.device)
    peak = heat.argmax(-1, keepdim=True)
    near = ((row - row[peak]).abs() <= _WINDOW) & ((column - column[peak]).abs() <= _WINDOW)
    heat = heat * near
    share = heat.sum(-1)
    x = (heat * (column + 0.5)).sum(-1) / share / width
    y = (heat * (row + 0.5)).sum(-1) / share / height
    return torch.stack([x, y], dim=-1), share


def heat_map_loss(logits: Tensor, points: Tensor) -> Tensor:
    """Cross-entropy to a Gaussian around each true point, plus the centre of mass's distance.

    Args:
        logits: Heat maps before the softmax, (N, points, H, W).
        points: True (x, y), fractions of width and height, (N, points, 2).

    Returns:
        The mean loss, a scalar.
    """
    height, width = logits.shape[-2:]
    row, column = _cells(height, width, logits.device)
    x, y = points[..., :1] * width - 0.5, points[..., 1:] * height - 0.5
    target = (-((row - y).square() + (column - x).square()) / (2 * _SPREAD**2)).softmax(-1)
    flat = logits.float().flatten(2)
    entropy = -(target * flat.log_softmax(-1)).sum(-1)
    heat = flat.softmax(-1)
    distance = ((heat * column).sum(-1, keepdim=True) - x).abs() + (
        (heat * row).sum(-1, keepdim=True) - y
    ).abs()
    return entropy.mean() + 0.2 * distance.mean()


def _cells(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    cells = torch.arange(height * width, device=device)
    return cells // width, cells % width
