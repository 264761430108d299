"""Promises about augmentation."""

from __future__ import annotations

import torch

from boneage_cli.core.augmentation import Augmentation
from boneage_cli.core.config import AugmentationSettings

RANGES = ("flip", "rotate", "translate", "scale", "shear", "brightness", "contrast", "gamma")
NOTHING = dict.fromkeys(RANGES, 0.0)


def arrow(height: int, width: int) -> torch.Tensor:
    """A hand pointing left, bright on its left half: (8, 1, H, W)."""
    image = torch.zeros(8, 1, height, width, dtype=torch.uint8)
    image[..., : width // 2] = 200
    return image


def test_a_flip_never_splits_the_views_of_one_hand() -> None:
    augmentation = Augmentation(AugmentationSettings(**{**NOTHING, "flip": 0.5}))
    torch.manual_seed(0)
    changed = augmentation({"hand": arrow(32, 32), "carpal": arrow(16, 16)})
    flipped = {name: view[:, 0, 0, 0] < 100 for name, view in changed.items()}
    assert flipped["hand"].tolist() == flipped["carpal"].tolist()
    assert 0 < int(flipped["hand"].sum()) < 8


def test_every_range_of_zero_leaves_the_pixels_as_they_are() -> None:
    image = arrow(32, 32)
    changed = Augmentation(AugmentationSettings(**NOTHING))({"hand": image})
    assert torch.equal(changed["hand"], image)


def test_switched_off_means_off() -> None:
    image = arrow(32, 32)
    changed = Augmentation(AugmentationSettings(enabled=False))({"hand": image})
    assert torch.equal(changed["hand"], image)


def test_the_same_seed_draws_the_same_changes() -> None:
    augmentation = Augmentation(AugmentationSettings())
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(augmentation({"hand": arrow(32, 32)})["hand"])
    assert torch.equal(*results)
    assert not torch.equal(results[0], arrow(32, 32).float())


def test_gray_values_stay_between_black_and_white() -> None:
    torch.manual_seed(2)
    changed = Augmentation(AugmentationSettings(brightness=0.5, contrast=0.9))(
        {"hand": arrow(32, 32)}
    )["hand"]
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 255
