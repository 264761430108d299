"""Tests of the key points of a hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.imaging.landmarks import Landmarks

LEFT_HAND = Landmarks(middle_tip=(0.5, 0.1), thumb_tip=(0.9, 0.4), capitate=(0.5, 0.7))


def test_points_come_back_from_an_array_in_the_order_of_their_names():
    assert Landmarks.from_array(LEFT_HAND.array()) == LEFT_HAND


def test_lengths_are_true_in_a_squashed_image():
    lying = Landmarks(middle_tip=(0.8, 0.5), thumb_tip=(0.5, 0.2), capitate=(0.2, 0.5))
    assert lying.hand_length(aspect=0.75) == pytest.approx(0.45)
    assert LEFT_HAND.hand_length(aspect=0.75) == pytest.approx(0.6)


@given(angle=st.floats(0, 2 * math.pi), mirror=st.booleans())
@settings(deadline=None)
def test_the_side_of_the_thumb_tells_a_mirrored_hand_at_any_turn(angle: float, mirror: bool):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (LEFT_HAND.array() - 0.5) * ((-1, 1) if mirror else (1, 1)) @ turn.T + 0.5
    assert Landmarks.from_array(points).is_mirrored(aspect=1.0) is mirror
