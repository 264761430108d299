"""Tests of registering hands to one pose and cropping regions."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.datasets.drawn_hands import NO_NUISANCES, DrawnHand, draw_hand
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import (
    REGIONS,
    canonical_from_image,
    region_corners,
    registered_mask,
    render_region,
    similarity,
)

ANGLES = st.floats(0, 2 * math.pi)
FACTORS = st.floats(0.2, 5)
SHIFTS = st.floats(-3, 3)
POINTS = np.array([(0.48, 0.1), (0.9, 0.42), (0.51, 0.7)])


def turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.fixture(scope="module")
def hand() -> DrawnHand:
    return draw_hand(120, True, np.random.default_rng(3), size=(480, 384), nuisances=NO_NUISANCES)


def landmarks_of(hand: DrawnHand) -> Landmarks:
    return Landmarks.from_array(np.array([hand.landmarks[name] for name in LANDMARK_NAMES]))


@given(angle=ANGLES, factor=FACTORS, x=SHIFTS, y=SHIFTS, mirrored=st.booleans())
@settings(deadline=None)
def test_any_turn_size_shift_and_mirror_is_recovered(
    angle: float, factor: float, x: float, y: float, mirrored: bool
):
    linear = factor * turn(angle) @ np.diag((-1.0 if mirrored else 1.0, 1.0))
    moved = POINTS @ linear.T + (x, y)
    found = similarity(POINTS, moved, mirrored=mirrored)
    np.testing.assert_allclose(found, np.column_stack([linear, (x, y)]), atol=1e-9)


def test_noisy_points_are_met_as_closely_as_least_squares_can():
    rng = np.random.default_rng(0)
    target = POINTS + rng.normal(0, 0.05, POINTS.shape)
    found = similarity(POINTS, target)

    def misfit(matrix: np.ndarray) -> float:
        return float(((POINTS @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for _ in range(200):
        angle, factor = rng.normal(0, 0.01), math.exp(rng.normal(0, 0.01))
        other = np.column_stack(
            [factor * turn(angle) @ found[:, :2], found[:, 2] + rng.normal(0, 0.01, 2)]
        )
        assert misfit(found) <= misfit(other)


def test_points_in_one_place_are_refused():
    with pytest.raises(ValueError, match="fall together"):
        similarity(np.zeros((3, 2)), POINTS)


@given(angle=ANGLES, factor=FACTORS, mirror=st.booleans(), aspect=st.floats(0.5, 2))
@settings(deadline=None)
def test_a_region_holds_the_same_part_of_the_hand_in_any_pose_and_aspect(
    angle: float, factor: float, mirror: bool, aspect: float
):
    plain = Landmarks.from_array(POINTS)
    linear = factor * turn(angle) @ np.diag((-1.0 if mirror else 1.0, 1.0))
    posed = Landmarks.from_array(POINTS @ linear.T / (aspect, 1))
    for region in REGIONS:
        expected = region_corners(plain, 1.0, region, 1.2) @ linear.T / (aspect, 1)
        np.testing.assert_allclose(region_corners(posed, aspect, region, 1.2), expected, atol=1e-9)


def test_a_registered_hand_has_its_middle_finger_above_and_its_thumb_right_of_the_capitate():
    matrix = canonical_from_image(Landmarks.from_array(POINTS[:, ::-1]), aspect=0.8)
    middle_tip, thumb_tip, capitate = POINTS[:, ::-1] @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(middle_tip, (0, -1), atol=1e-9)
    np.testing.assert_allclose(capitate, (0, 0), atol=1e-9)
    assert thumb_tip[0] > 0


@given(quarters=st.integers(0, 3), mirror=st.booleans())
@settings(deadline=None, max_examples=8)
def test_a_turned_or_mirrored_radiograph_is_registered_to_the_same_pixels(
    quarters: int, mirror: bool, hand: DrawnHand
):
    points = landmarks_of(hand).array()
    pixels = hand.pixels
    if mirror:
        pixels, points = pixels[:, ::-1], points * (-1, 1) + (1, 0)
    pixels = np.rot90(pixels, quarters)
    for _ in range(quarters):
        points = np.column_stack([points[:, 1], 1 - points[:, 0]])
    for region in REGIONS:
        expected = render_region(Radiograph(hand.pixels), landmarks_of(hand), region, 128, 112)
        result = render_region(Radiograph(pixels), Landmarks.from_array(points), region, 128, 112)
        difference = np.abs(result.astype(float) - expected)
        assert difference.mean() < 0.3
        assert difference.max() <= 12


def test_a_squashed_radiograph_is_registered_to_nearly_the_same_pixels(hand: DrawnHand):
    squashed = Radiograph(
        cv2.resize(hand.pixels, (384, 384), interpolation=cv2.INTER_AREA), aspect=384 / 480
    )
    for region in REGIONS:
        expected = render_region(Radiograph(hand.pixels), landmarks_of(hand), region, 128, 128)
        result = render_region(squashed, landmarks_of(hand), region, 128, 128)
        assert np.abs(result.astype(float) - expected).mean() < 2.5


def test_the_carpal_and_metacarpal_regions_hold_the_bones_of_hands_of_every_age():
    for age in (2, 24, 60, 120, 216):
        hand = draw_hand(age, False, np.random.default_rng(age))
        aspect = hand.pixels.shape[1] / hand.pixels.shape[0]
        matrix = canonical_from_image(landmarks_of(hand), aspect)
        for region in ("carpal", "metaph"):
            xmin, ymin, xmax, ymax = hand.regions[region]
            # The slack is for the proximal phalanx of a widely spread thumb, the outermost bone.
            corners = np.array([(xmin, ymin), (xmax, ymax)]) @ matrix[:, :2].T + matrix[:, 2]
            left, top, right, bottom = REGIONS[region]
            slack = 0.08
            assert (corners >= (left - slack, top - slack)).all(), (age, region)
            assert (corners <= (right + slack, bottom + slack)).all(), (age, region)


def test_a_wide_view_shows_more_instead_of_stretching(hand: DrawnHand):
    square = render_region(Radiograph(hand.pixels), landmarks_of(hand), "carpal", 96, 96)
    wide = render_region(Radiograph(hand.pixels), landmarks_of(hand), "carpal", 96, 160)
    assert np.abs(wide[:, 32:128].astype(float) - square).max() <= 1


def test_12_bit_pixels_give_the_same_view_as_8_bits(hand: DrawnHand):
    deep = Radiograph((hand.pixels.astype(np.float64) * 4095 / 255).round().astype(np.uint16), 4095)
    expected = render_region(Radiograph(hand.pixels), landmarks_of(hand), "hand", 128, 128)
    result = render_region(deep, landmarks_of(hand), "hand", 128, 128)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_region_goes_on_beyond_the_radiograph_in_the_level_of_its_border():
    hand = draw_hand(120, True, np.random.default_rng(8), size=(480, 384)).pixels.copy()
    hand[[0, -1]] = 70
    hand[:, [0, -1]] = 70
    near_the_edge = Landmarks(middle_tip=(0.5, 0.05), thumb_tip=(0.9, 0.5), capitate=(0.5, 0.9))
    for pixels, white in ((hand, 255), (hand.astype(np.uint16) * 16, 4080)):
        seen = render_region(Radiograph(pixels, white), near_the_edge, "hand", 160, 136)
        assert seen[-1].tolist() == [70] * 136


def test_removing_the_background_keeps_the_hand_and_blackens_the_rest():
    hand = draw_hand(120, True, np.random.default_rng(8), size=(480, 384))
    landmarks = landmarks_of(hand)
    drawn = Radiograph(hand.pixels)
    skin = Radiograph((hand.skin * 255).astype(np.uint8))
    for region in REGIONS:
        is_hand = render_region(skin, landmarks, region, 160, 160) > 127
        kept = render_region(drawn, landmarks, region, 160, 160)
        clean = render_region(
            drawn, landmarks, region, 160, 160, mask=registered_mask(drawn, landmarks)
        )
        far = cv2.dilate(is_hand.astype(np.uint8), np.ones((25, 25), np.uint8)) == 0
        core = cv2.erode(is_hand.astype(np.uint8), np.ones((5, 5), np.uint8)) == 1
        assert clean[far].sum() < 0.01 * kept[far].sum() + 1
        assert np.abs(clean[core].astype(int) - kept[core]).mean() < 4


@pytest.mark.parametrize("height", [37, 148, 740])
def test_the_edge_of_a_mask_lies_where_it_lay_at_any_resolution(hand: DrawnHand, height: int):
    width = round(height * 1.28 / 1.48)
    white = Radiograph(np.full((480, 384), 255, np.uint8))
    mask = np.zeros((256, 221), np.float32)
    mask[:96, :150] = 1
    seen = render_region(white, landmarks_of(hand), "hand", height, width, mask=mask)
    across, down = seen[0].sum() / 255, seen[:, 0].sum() / 255
    assert across == pytest.approx(150 / 221 * width, abs=0.3)
    assert down == pytest.approx(96 / 256 * height, abs=0.3)
