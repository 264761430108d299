"""Random changes of a whole batch, on the device that trains.

All views of one hand are changed by the same draw, so a flip never splits them.
"""

from __future__ import annotations

from typing import Any

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomHorizontalFlip,
)
from torch import Tensor, nn

from boneage_cli.core.config import AugmentationSettings


class Augmentation(nn.Module):
    """Geometric and photometric augmentation of uint8 batches.

    Args:
        settings: The ranges; a range of zero leaves its step out.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        super().__init__()
        s = settings
        steps: list[Any] = []
        if s.flip:
            steps.append(RandomHorizontalFlip(p=s.flip))
        if s.rotate or s.translate or s.scale or s.shear:
            steps.append(
                RandomAffine(
                    degrees=s.rotate,
                    translate=(s.translate, s.translate),
                    scale=(1 - s.scale, 1 + s.scale),
                    shear=s.shear or None,
                    # Black corners on a gray surround would be seen in training alone.
                    padding_mode="border",
                    p=1.0,
                )
            )
        if s.contrast:
            steps.append(RandomContrast((1 - s.contrast, 1 + s.contrast), p=1.0))
        if s.brightness:
            steps.append(RandomBrightness((1 - s.brightness, 1 + s.brightness), p=1.0))
        if s.gamma:
            steps.append(RandomGamma((1 - s.gamma, 1 + s.gamma), p=1.0))
        self.steps: AugmentationSequential | None = (
            AugmentationSequential(*steps, data_keys=["input"]) if s.enabled and steps else None
        )

    @torch.no_grad()
    def forward(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Changes a batch.

        Args:
            views: For each view, uint8 (B, 1, H, W).

        Returns:
            The views changed, float32 in 0…255, same shapes.
        """
        if self.steps is None:
            return views
        changed: dict[str, Tensor] = {}
        draw = None
        for name, pixels in views.items():
            values = pixels.float().div_(255)
            values = self.steps(values) if draw is None else self.steps(values, params=draw)
            draw = draw or self.steps._params
            changed[name] = values.mul_(255)
        return changed
