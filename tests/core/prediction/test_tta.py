"""Tests of test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_cli.core.config import AugmentationSettings
from boneage_cli.core.prediction.tta import AS_IT_IS, tta_views, turned
from boneage_cli.datasets.drawn_hands import draw_hand


def test_only_a_network_that_saw_mirrored_hands_is_shown_them() -> None:
    assert any(mirrored for mirrored, _ in tta_views(AugmentationSettings(flip=0.5)))
    for settings in (AugmentationSettings(flip=0), AugmentationSettings(enabled=False)):
        views = tta_views(settings)
        assert not any(mirrored for mirrored, _ in views)
        assert len(set(views)) > 1


def test_a_view_as_it_is_is_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 16), np.uint8)
    assert turned(images, AS_IT_IS) is images
    assert (turned(images, (True, 0.0))[:, :, ::-1] == images).all()


def test_a_turn_and_its_reverse_give_the_hand_back() -> None:
    hand = draw_hand(120, True, np.random.default_rng(0), size=(160, 136)).pixels[None]
    once = turned(hand, (False, 8.0))
    again = turned(once, (False, -8.0))
    middle = (0, slice(40, 120), slice(34, 102))
    assert np.abs(once[middle].astype(float) - hand[middle]).mean() > 5
    assert np.abs(again[middle].astype(float) - hand[middle]).mean() < 5


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_views_are_turned_by_less_than_hands_in_training(flip: float) -> None:
    settings = AugmentationSettings(flip=flip)
    turns = [degrees for _, degrees in tta_views(settings)]
    assert sum(turns) == 0
    assert max(turns) <= settings.rotate
