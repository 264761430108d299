"""Tests of augmentation."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from boneage_cli.core.config import AugmentationSettings
from boneage_cli.core.training.augmentation import Augmentation

RANGES = (
    "flip",
    "rotate",
    "translate",
    "scale",
    "aspect",
    "shear",
    "brightness",
    "contrast",
    "gamma",
    "blur",
    "noise",
)
NOTHING = dict.fromkeys(RANGES, 0.0)


def arrow(height: int, width: int) -> torch.Tensor:
    """Returns images with a bright left half, (8, 1, H, W)."""
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


def test_what_is_random_is_drawn_on_the_cpu_wherever_the_network_is() -> None:
    # Numbers drawn on a GPU are copied back, and each copy waits for all of its work.
    ranges = {"rotate": 10.0, "contrast": 0.2, "gamma": 0.2, "blur": 1.0, "aspect": 0.1}
    augmentation = Augmentation(AugmentationSettings(**{**NOTHING, **ranges})).to("meta")
    changed = augmentation({"hand": arrow(32, 32)})["hand"]
    assert not torch.equal(changed, arrow(32, 32).float())
    assert not augmentation.state_dict()


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


def test_the_precision_of_the_training_changes_no_image() -> None:
    augmentation = Augmentation(AugmentationSettings(noise=0, blur=1))
    pixels = torch.randint(256, (8, 1, 128, 128), dtype=torch.uint8)
    changed = []
    for enabled in (False, True):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            changed.append(augmentation({"hand": pixels})["hand"])
    assert changed[1].dtype == torch.float32
    assert torch.equal(*changed)


def square(side: int) -> torch.Tensor:
    """Returns a white square centred on black, (32, 1, side, side); it fills a quarter."""
    image = torch.zeros(32, 1, side, side, dtype=torch.uint8)
    image[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 255
    return image


def extent(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns height and width of the square in each image, as fractions of the side."""
    shares = images[:, 0] / 255
    return shares.amax(2).mean(1), shares.amax(1).mean(1)


def test_a_shift_is_the_same_fraction_of_every_view() -> None:
    augmentation = Augmentation(AugmentationSettings(**{**NOTHING, "translate": 0.2, "rotate": 20}))
    torch.manual_seed(0)
    changed = augmentation({"hand": square(128), "carpal": square(64)})
    halved = torch.nn.functional.avg_pool2d(changed["hand"], 2)
    assert (halved - changed["carpal"]).abs().mean() < 3
    assert (halved - square(64)).abs().mean() > 10


def test_sizes_stay_within_the_range_of_factors() -> None:
    settings = AugmentationSettings(**{**NOTHING, "scale": (0.6, 1.0)})
    torch.manual_seed(0)
    heights, widths = extent(Augmentation(settings)({"hand": square(128)})["hand"])
    assert heights.max() <= 0.5 + 0.02
    assert 0.3 - 0.02 <= heights.min() < 0.4
    assert torch.allclose(heights, widths, atol=0.01)


def test_aspect_changes_height_against_width_and_keeps_the_area() -> None:
    settings = AugmentationSettings(**{**NOTHING, "aspect": 0.3})
    torch.manual_seed(0)
    heights, widths = extent(Augmentation(settings)({"hand": square(128)})["hand"])
    ratio = heights / widths
    assert 1.2 < ratio.max() < 1.4
    assert 0.7 < ratio.min() < 0.85
    assert torch.allclose(heights * widths, torch.tensor(0.25), atol=0.02)


def test_blur_softens_every_second_image() -> None:
    settings = AugmentationSettings(**{**NOTHING, "blur": 2.0})
    torch.manual_seed(0)
    steps = Augmentation(settings)({"hand": square(64)})["hand"].diff(dim=-1).abs().amax((1, 2, 3))
    assert 8 < int((steps < 200).sum()) < 24
    assert (steps > 250).any()


def test_noise_is_of_any_strength_up_to_the_largest() -> None:
    gray = torch.full((64, 1, 64, 64), 128, dtype=torch.uint8)
    torch.manual_seed(0)
    changed = Augmentation(AugmentationSettings(**{**NOTHING, "noise": 0.1}))({"hand": gray})
    deviations = changed["hand"].std((1, 2, 3))
    assert 0 < deviations.min() < 1
    assert 20 < deviations.max() < 1.05 * 25.5


def test_a_range_from_large_to_small_is_refused() -> None:
    with pytest.raises(ValidationError, match="not from a smaller to a larger"):
        AugmentationSettings(scale=(1.1, 0.9))


PLACE = (64 + 30, 64 - 14)
"""Column and row of the dot, away from the centre of 128 × 128 pixels in both directions."""


def dots(count: int = 128) -> torch.Tensor:
    """Returns images with a dot 7 pixels wide at ``PLACE``, (count, 1, 128, 128)."""
    image = torch.zeros(count, 1, 128, 128, dtype=torch.uint8)
    column, row = PLACE
    image[..., row - 3 : row + 4, column - 3 : column + 4] = 255
    return image


def places(images: torch.Tensor) -> torch.Tensor:
    """Returns column and row of each image's dot, its centre of mass, (B, 2)."""
    steps = torch.arange(128.0)
    mass = images.sum((1, 2, 3))
    columns = (images.sum((1, 2)) * steps).sum(1) / mass
    rows = (images.sum((1, 3)) * steps).sum(1) / mass
    return torch.stack([columns, rows], 1)


def augmented(images: torch.Tensor, **ranges: object) -> torch.Tensor:
    torch.manual_seed(0)
    return Augmentation(AugmentationSettings(**{**NOTHING, **ranges}))({"hand": images})["hand"]


def test_a_hand_is_turned_about_the_middle_by_up_to_the_largest_angle_both_ways() -> None:
    # Relative to the image's centre, which is between pixels.
    arms = places(augmented(dots(), rotate=30)) - 63.5
    before = torch.tensor(PLACE) - 63.5
    assert torch.allclose(arms.norm(dim=1), before.norm(), atol=0.5)
    turned = (arms[:, 1].atan2(arms[:, 0]) - before[1].atan2(before[0])).rad2deg()
    assert turned.abs().max() < 30.5
    assert turned.min() < -25
    assert turned.max() > 25


def test_a_hand_is_shifted_by_up_to_the_largest_fraction_in_each_direction() -> None:
    shifts = (places(augmented(dots(), translate=0.1)) - torch.tensor(PLACE)) / 128
    assert shifts.abs().max() < 0.101
    assert (shifts.min(0).values < -0.08).all()
    assert (shifts.max(0).values > 0.08).all()


def test_a_shear_moves_rows_against_each_other_by_up_to_its_angle() -> None:
    before = torch.tensor(PLACE) - 63.5
    after = places(augmented(dots(), shear=20)) - 63.5
    angles = ((after[:, 0] - before[0]) / before[1]).atan().rad2deg()
    assert torch.allclose(after[:, 1], before[1], atol=0.2)
    assert angles.abs().max() < 20.5
    assert angles.min() < -15
    assert angles.max() > 15


@pytest.mark.parametrize(
    ("name", "darkest", "brightest"),
    [
        ("brightness", 100 - 0.2 * 255, 100 + 0.2 * 255),
        ("contrast", 80, 120),
        ("gamma", 255 * (100 / 255) ** 1.2, 255 * (100 / 255) ** 0.8),
    ],
)
def test_gray_values_change_by_up_to_the_range_both_ways(
    name: str, darkest: float, brightest: float
) -> None:
    gray = torch.full((256, 1, 4, 4), 100, dtype=torch.uint8)
    levels = augmented(gray, **{name: 0.2})[:, 0, 0, 0]
    assert darkest - 0.1 < levels.min() < darkest + 2
    assert brightest - 2 < levels.max() < brightest + 0.1


@pytest.mark.parametrize("name", RANGES)
def test_each_range_alone_changes_the_pixels(name: str) -> None:
    changed = augmented(arrow(32, 32), **{name: 0.5})
    assert not torch.equal(changed, arrow(32, 32).float())
