"""Tests of the detection of inverted radiographs."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_cli.datasets.drawn_hands import NO_NUISANCES, draw_hand
from boneage_cli.imaging.inversion import is_negative
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks
from boneage_cli.imaging.radiograph import Radiograph, negative


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_one_bright_strip_beside_the_wrist_makes_no_negative(side: str):
    hand = draw_hand(120, True, np.random.default_rng(3), size=(480, 384), nuisances=NO_NUISANCES)
    landmarks = Landmarks.from_array(np.array([hand.landmarks[name] for name in LANDMARK_NAMES]))
    drawn = np.where(hand.skin > 0.5, np.maximum(hand.pixels, 60), 10).astype(np.uint8)
    bare = np.zeros_like(drawn)
    if side != "none":
        half = slice(None, 192) if side == "left" else slice(192, None)
        bare[300:, half] = 250
    plate = np.where(hand.skin > 0.5, drawn, np.maximum(drawn, bare))
    assert not is_negative(Radiograph(plate), landmarks)
    assert is_negative(negative(Radiograph(drawn)), landmarks)
