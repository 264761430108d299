"""Tests of the perturbations of a radiograph."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import groupby

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.errors import BoneageError
from boneage_cli.imaging.perturbation_catalogue import PERTURBATIONS, Perturbation
from boneage_cli.imaging.perturbations import (
    add_frame,
    add_letter,
    add_noise,
    add_text_box,
    apply_gamma,
    as_16_bit_png,
    as_dicom,
    as_jpeg,
    as_negative_png,
    blur,
    brighten,
    cut,
    dicom_bytes,
    mirror,
    reduce_to,
    scale_contrast,
    turn,
    turn_quarters,
)
from boneage_cli.imaging.radiograph import Radiograph, aspect_of

ALL = pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda one: one.name)
# Full white at the bit depths of radiographs.
WHITES = (255, 1023, 4095, 65535)
IN_FRAME = {"turned 10°", "turned 20°", "mirrored", "letter", "text box"}

SIDES = st.integers(1, 40)


@st.composite
def radiographs(draw, sides=SIDES) -> Radiograph:
    """Draws small radiographs of any size, bit depth and aspect."""
    white = draw(st.sampled_from(WHITES))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = np.uint8 if white == 255 else np.uint16
    pixels = random.integers(0, white + 1, (draw(sides), draw(sides)), kind)
    return Radiograph(pixels, white, "hand", aspect=draw(st.none() | st.floats(0.3, 3)))


@pytest.fixture
def hand(hand_pixels) -> Radiograph:
    """A hand of 320 × 256 pixels whose intensities touch neither end of the 12-bit range."""
    pixels = 400 + 12 * hand_pixels.astype(np.uint16)
    return Radiograph(pixels, 4095, "hand.dcm", male=True, age=123.0, laterality="L")


def gray(height: int, width: int, **known) -> Radiograph:
    return Radiograph(np.full((height, width), 32768, np.uint16), 65535, **known)


def pixel_aspect(radiograph: Radiograph) -> float:
    height, width = radiograph.pixels.shape
    return aspect_of(radiograph) * height / width


def assert_same(found: Radiograph, wanted: Radiograph) -> None:
    np.testing.assert_array_equal(found.pixels, wanted.pixels)
    assert replace(found, pixels=wanted.pixels) == wanted


def test_each_has_a_name_of_its_own_and_stands_beside_its_group():
    assert len({one.name for one in PERTURBATIONS}) == len(PERTURBATIONS)
    groups = [name for name, _ in groupby(one.group for one in PERTURBATIONS)]
    assert groups == ["pose", "exposure", "sharpness", "frame", "file"]


@ALL
def test_the_same_radiograph_comes_out_the_same_and_stays_as_it_was(
    hand: Radiograph, perturbation: Perturbation
):
    before = hand.pixels.copy()
    first = perturbation.change(hand)
    # A copy in other memory, because the result must not depend on the object.
    assert_same(perturbation.change(replace(hand, pixels=before.copy())), first)
    np.testing.assert_array_equal(hand.pixels, before)
    assert first is hand or not np.shares_memory(first.pixels, hand.pixels)
    assert first.pixels.flags.c_contiguous


@ALL
def test_what_is_known_besides_the_pixels_stays(hand: Radiograph, perturbation: Perturbation):
    found = perturbation.change(hand)
    for name in ("source", "male", "age", "laterality"):
        assert getattr(found, name) == getattr(hand, name), name


@pytest.mark.parametrize("white", WHITES)
@pytest.mark.parametrize(
    "perturbation", [one for one in PERTURBATIONS if one.group != "file"], ids=lambda one: one.name
)
def test_depth_is_kept_by_all_that_is_not_about_the_file(
    hand_pixels, white: int, perturbation: Perturbation
):
    kind = np.uint8 if white == 255 else np.uint16
    pixels = (hand_pixels * (white / 255)).astype(kind)
    found = perturbation.change(Radiograph(pixels, white))
    assert (found.pixels.dtype, found.white) == (kind, white)
    assert found.pixels.max() <= white


@given(radiograph=radiographs())
@settings(deadline=None, max_examples=15)
def test_any_size_depth_and_proportions_will_do(radiograph: Radiograph):
    for perturbation in PERTURBATIONS:
        found = perturbation.change(radiograph)
        name, quarter = perturbation.name, perturbation.name in ("turned 90°", "turned 270°")
        assert found.pixels.size > 0, name
        assert found.pixels.max() <= found.white, name
        if name in IN_FRAME or perturbation.group in ("exposure", "file") or name == "noise":
            assert found.pixels.shape == radiograph.pixels.shape, name
        if "pixels high" in name:
            assert aspect_of(found) == pytest.approx(aspect_of(radiograph)), name
        else:
            # The ratio of the pixels' sides in millimetres is unchanged.
            expected = 1 / pixel_aspect(radiograph) if quarter else pixel_aspect(radiograph)
            assert pixel_aspect(found) == pytest.approx(expected), name


@given(radiograph=radiographs(), quarters=st.integers(0, 3))
@settings(deadline=None)
def test_quarter_turns_and_mirrors_lose_nothing(radiograph: Radiograph, quarters: int):
    back = turn_quarters(turn_quarters(radiograph, quarters), 4 - quarters)
    np.testing.assert_array_equal(back.pixels, radiograph.pixels)
    assert aspect_of(back) == pytest.approx(aspect_of(radiograph))
    assert_same(mirror(mirror(radiograph)), radiograph)


def test_a_quarter_turn_goes_to_the_left():
    pixels = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    found = turn_quarters(Radiograph(pixels, aspect=0.75), 1)
    assert found.pixels.tolist() == [[3, 6], [2, 5], [1, 4]]
    assert found.aspect == pytest.approx(4 / 3)


def test_a_mirror_exchanges_left_and_right():
    assert mirror(Radiograph(np.array([[1, 2, 3]], np.uint8))).pixels.tolist() == [[3, 2, 1]]


@given(quarters=st.integers(-4, 4), white=st.sampled_from(WHITES), side=st.integers(2, 40))
@settings(deadline=None)
def test_turning_by_right_angles_is_turning_quarters(quarters: int, white: int, side: int):
    kind = np.uint8 if white == 255 else np.uint16
    pixels = np.random.default_rng(side).integers(0, white + 1, (side, side), kind)
    radiograph = Radiograph(pixels, white)
    assert_same(turn(radiograph, 90 * quarters), turn_quarters(radiograph, quarters % 4))


@pytest.mark.parametrize("degrees", [10, -35])
def test_a_squashed_hand_turns_as_the_hand_itself_does(hand: Radiograph, degrees: int):
    height, width = hand.pixels.shape

    def squashed(radiograph: Radiograph) -> Radiograph:
        pixels = cv2.resize(radiograph.pixels, (width // 2, height), interpolation=cv2.INTER_AREA)
        return replace(radiograph, pixels=pixels, aspect=width / height)

    found, wanted = turn(squashed(hand), degrees), squashed(turn(hand, degrees))
    inside = (slice(60, -60), slice(30, -30))
    difference = found.pixels[inside].astype(float) - wanted.pixels[inside]
    unturned = squashed(hand).pixels[inside].astype(float) - wanted.pixels[inside]
    assert np.abs(difference).mean() < 0.1 * np.abs(unturned).mean()


def test_a_turn_brings_in_the_border_and_no_black(hand: Radiograph):
    assert turn(hand, 20).pixels.min() >= hand.pixels.min() > 0


@given(radiograph=radiographs(), by=st.floats(-1, 1))
@settings(deadline=None)
def test_brightness_is_added_and_clipped(radiograph: Radiograph, by: float):
    wanted = np.clip(radiograph.pixels + by * radiograph.white, 0, radiograph.white)
    np.testing.assert_allclose(brighten(radiograph, by).pixels, wanted, atol=0.51)


def test_darker_is_darker_and_brighter_is_brighter(hand: Radiograph):
    means = {one.name: one.change(hand).pixels.mean() for one in PERTURBATIONS}
    plain = hand.pixels.mean()
    assert means["much darker"] < means["darker"] < plain
    assert means["much brighter"] > means["brighter"] > plain
    assert means["gamma 1.7"] < plain < means["gamma 0.6"]


@pytest.mark.parametrize("factor", [0.5, 1.05])
def test_contrast_spreads_intensities_round_their_mean(hand: Radiograph, factor: float):
    found = scale_contrast(hand, factor).pixels
    assert found.mean() == pytest.approx(hand.pixels.mean(), rel=1e-3)
    assert found.std() == pytest.approx(factor * hand.pixels.std(), rel=1e-3)


def test_a_gamma_moves_the_middle_and_leaves_black_and_white():
    found = apply_gamma(Radiograph(np.array([[0, 64, 128, 255]], np.uint8)), 2.0)
    assert found.pixels.tolist() == [[0, 16, 64, 255]]


def test_a_blur_is_as_wide_in_millimetres_whatever_the_pixels():
    pixels = np.zeros((401, 201), np.uint16)
    pixels[200, 100] = 65535
    # A square plate whose pixels are twice as wide as high.
    found = blur(Radiograph(pixels, 65535, aspect=1.0), 0.02).pixels.astype(float)
    for axis, deviation in ((0, 8.0), (1, 4.0)):
        profile = found.sum(axis=1 - axis)
        places = np.arange(len(profile)) - len(profile) // 2
        spread = np.sqrt((profile * places**2).sum() / profile.sum())
        assert spread == pytest.approx(deviation, rel=0.06)


@given(radiograph=radiographs(), height=st.integers(1, 50))
@settings(deadline=None)
def test_an_image_is_reduced_in_proportion_and_never_enlarged(radiograph: Radiograph, height: int):
    found = reduce_to(radiograph, height)
    if radiograph.pixels.shape[0] <= height:
        assert found is radiograph
        return
    rows, columns = radiograph.pixels.shape
    assert found.pixels.shape[0] == height
    assert abs(found.pixels.shape[1] - columns * height / rows) <= max(0.5, 1 - 1 / rows)
    assert aspect_of(found) == pytest.approx(aspect_of(radiograph))
    assert radiograph.pixels.min() <= found.pixels.min()
    assert found.pixels.max() <= radiograph.pixels.max()


@pytest.mark.parametrize(("height", "share"), [(1024, 1.0), (512, 1.0), (256, 0.5), (128, 0.25)])
def test_noise_has_its_deviation_in_grains_and_their_mean_in_coarser_pixels(height, share):
    found = add_noise(gray(height, height), 0.05).pixels / 65535
    assert found.std() == pytest.approx(share * 0.05, rel=0.03)
    assert found.mean() == pytest.approx(0.5, abs=0.002)


def test_noise_is_of_the_pixels_and_not_of_the_file(hand: Radiograph):
    there = add_noise(replace(hand, source="elsewhere.png"), 0.05)
    np.testing.assert_array_equal(there.pixels, add_noise(hand, 0.05).pixels)
    other = replace(hand, pixels=hand.pixels + np.uint16(1))
    assert (add_noise(other, 0.05).pixels != there.pixels + 1).any()


def test_a_cut_takes_off_shares_of_the_sides():
    pixels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    found = cut(Radiograph(pixels, aspect=1.0), left=0.1, top=0.2, right=0.3, bottom=0.4)
    np.testing.assert_array_equal(found.pixels, pixels[2:6, 2:14])
    # 60 % of the width over 40 % of the height.
    assert found.aspect == pytest.approx(1.5)


def test_square_pixels_stay_square_in_another_frame():
    assert cut(gray(100, 60), bottom=0.1).aspect is None
    assert add_frame(gray(100, 60), 0.25).aspect is None


def test_a_frame_is_black_around_the_radiograph():
    found = add_frame(gray(100, 60, aspect=0.8), 0.25)
    assert found.pixels.shape == (150, 90)
    assert (found.pixels[25:125, 15:75] == 32768).all()
    assert found.pixels.sum(dtype=np.int64) == 32768 * 100 * 60
    assert found.aspect == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("mark", "corner", "share"),
    [
        (add_letter, (slice(0, 44), slice(0, 44)), 0.08),
        (add_text_box, (slice(-52, None), slice(-120, None)), 0.10),
    ],
)
def test_a_mark_is_white_in_its_corner_and_nowhere_else(mark, corner, share):
    plain = gray(400, 300)
    found = mark(plain).pixels
    changed = found != plain.pixels
    assert found[corner].max() == 65535
    rows = np.flatnonzero(changed.any(axis=1))
    assert np.ptp(rows) + 1 <= share * 400 + 1
    changed[corner] = False
    assert not changed.any()


def test_a_text_box_covers_what_is_beneath_and_a_letter_does_not():
    assert add_text_box(gray(400, 300)).pixels.min() == 0
    assert add_letter(gray(400, 300)).pixels.min() == 32768


@given(
    radiograph=radiographs(st.integers(2, 40)),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@settings(deadline=None, max_examples=30)
def test_a_dicom_file_of_either_kind_gives_the_same_intensities(radiograph, photometric):
    # 16-bit images with unused upper bits are read as images of fewer bits.
    radiograph.pixels[0] = 0
    radiograph.pixels[1] = radiograph.white
    assert_same(as_dicom(radiograph, photometric), radiograph)


def test_a_dicom_file_is_sound_and_monochrome1_stores_a_negative(hand: Radiograph):
    plain, inverted = (
        pydicom.dcmread(io.BytesIO(dicom_bytes(hand, kind)))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert (plain.BitsAllocated, plain.BitsStored, plain.HighBit) == (16, 12, 11)
    assert inverted.PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(plain.pixel_array, hand.pixels)
    np.testing.assert_array_equal(inverted.pixel_array, 4095 - hand.pixels)


@pytest.mark.parametrize("white", WHITES)
def test_a_16_bit_png_holds_the_same_shares_of_full_white(hand_pixels, white):
    pixels = np.rint(hand_pixels * (white / 255)).astype(np.uint8 if white == 255 else np.uint16)
    pixels[0, 0] = white
    found = as_16_bit_png(Radiograph(pixels, white))
    assert (found.pixels.dtype, found.white) == (np.uint16, 65535)
    np.testing.assert_allclose(found.pixels / 65535, pixels / white, atol=0.6 / 65535)


@pytest.mark.parametrize("white", WHITES)
def test_an_inverted_png_comes_as_a_negative(hand_pixels, white):
    pixels = (hand_pixels * (white / 255)).astype(np.uint8 if white == 255 else np.uint16)
    found = as_negative_png(Radiograph(pixels, white))
    np.testing.assert_array_equal(found.pixels, white - pixels)
    assert found.white == white


def test_a_jpeg_has_8_bits_and_loses_more_at_a_lower_quality(hand: Radiograph):
    found = {quality: as_jpeg(hand, quality) for quality in (95, 30)}
    errors = {
        quality: np.abs(one.pixels / 255 - hand.pixels / 4095).mean()
        for quality, one in found.items()
    }
    assert found[30].pixels.dtype == np.uint8
    assert found[30].white == 255
    assert 0 < errors[95] < errors[30] < 0.02


@pytest.mark.parametrize("change", [lambda image: as_jpeg(image, 90), as_dicom])
def test_a_picture_that_a_format_cannot_hold_is_told_of(change):
    strip = Radiograph(np.zeros((4, 66_000), np.uint8), source="strip.png")
    with pytest.raises(BoneageError, match=r"strip\.png: 66000 × 4 pixels are more than a"):
        change(strip)
