"""Random augmentation of whole batches, on the GPU if the network trains there.

All views of one hand share their random parameters, so that a flip applies to all of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomBrightness,
    RandomContrast,
    RandomGamma,
    RandomGaussianBlur,
    RandomHorizontalFlip,
)
from kornia.augmentation.container.params import ParamItem
from torch import Tensor, nn

from boneage_cli.core.config import AugmentationSettings


class Augmentation(nn.Module):
    """Geometric and photometric augmentation of uint8 batches.

    Args:
        settings: The ranges; a step whose range is zero is left out.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        super().__init__()
        s = settings
        steps: list[Any] = []
        if s.flip:
            steps.append(RandomHorizontalFlip(p=s.flip))
        self.aspect = s.aspect
        if s.rotate or s.translate or s.scale_range != (1, 1) or s.aspect or s.shear:
            steps.append(
                RandomAffine(
                    degrees=s.rotate,
                    translate=(s.translate, s.translate),
                    scale=s.scale_range,
                    shear=s.shear or None,
                    # Black corners on a grey background would occur only in training.
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
        if s.blur:
            side = 2 * math.ceil(2.5 * s.blur) + 1
            least = min(0.1, s.blur)
            steps.append(RandomGaussianBlur((side, side), (least, s.blur), p=0.5))
        self.noise = s.noise if s.enabled else 0.0
        # In a tuple, so that it is no submodule: kornia would draw on the module's device, and
        # copying what was drawn on a GPU waits for all of its work.
        self._steps = (
            (AugmentationSequential(*steps, data_keys=["input"]),) if s.enabled and steps else ()
        )

    @torch.no_grad()
    def forward(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Augments a batch.

        Args:
            views: For each view, uint8 (B, 1, H, W).

        Returns:
            The augmented views, float32 in 0…255, same shapes; the inputs if all steps are off.
        """
        first = next(iter(views.values()))
        strength: Tensor | None = None
        if self.noise:
            # Squared, so that most images get little noise.
            strength = torch.rand(len(first), 1, 1, 1, device=first.device).square() * self.noise
        if not self._steps:
            return {name: self._noisy(pixels, strength) for name, pixels in views.items()}
        (steps,) = self._steps
        shape = first.shape
        draw = self._draw(steps, shape)
        changed: dict[str, Tensor] = {}
        # Rounding the affine matrices to bf16 or fp16 would shift hands by up to a pixel.
        with torch.autocast(first.device.type, enabled=False):
            for name, pixels in views.items():
                params = [_for_size(item, shape, pixels.shape) for item in draw]
                seen = steps(pixels.float().div_(255), params=params).mul_(255)
                changed[name] = self._noisy(seen, strength)
        return changed

    def _noisy(self, pixels: Tensor, strength: Tensor | None) -> Tensor:
        if strength is None:
            return pixels
        grain = torch.randn(pixels.shape, device=pixels.device)
        return (pixels + 255 * strength * grain).clamp(0, 255)

    def _draw(self, steps: AugmentationSequential, shape: torch.Size) -> list[ParamItem]:
        draw = steps.forward_parameters(shape)
        if self.aspect:
            # The change of aspect keeps the area.
            factor = torch.empty(shape[0]).uniform_(-self.aspect, self.aspect).exp().sqrt()
            for item in draw:
                if isinstance(item.data, dict) and "scale" in item.data:
                    item.data["scale"] *= torch.stack([1 / factor, factor], 1)
        return draw


def _for_size(item: ParamItem, drawn: torch.Size, shape: torch.Size) -> ParamItem:
    # kornia draws shifts and the centre of rotation in pixels, so they are scaled to a view of
    # another size.
    values = item.data
    if not isinstance(values, dict) or "translations" not in values or drawn == shape:
        return item
    factor = torch.tensor([shape[-1] / drawn[-1], shape[-2] / drawn[-2]])
    moved = {
        "translations": values["translations"] * factor,
        "center": (values["center"] + 0.5) * factor - 0.5,
    }
    return ParamItem(item.name, values | moved)
