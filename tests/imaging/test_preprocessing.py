"""Tests of preprocessing to the network's input."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from boneage_cli.datasets.drawn_hands import NO_NUISANCES, draw_hand
from boneage_cli.imaging.depth import estimate_white
from boneage_cli.imaging.preprocessing import Preprocessing, geometry, preprocess
from boneage_cli.imaging.radiograph import Radiograph

EVERY_KIND = [
    Preprocessing(),
    Preprocessing(fit="squash"),
    Preprocessing(height=299, width=224, contrast="stretch"),
    Preprocessing(contrast="centre"),
    Preprocessing(clahe=True),
    Preprocessing(foreground=True, contrast="stretch", clahe=True, clahe_tiles=16),
]


def disc(width: int, height: int) -> np.ndarray:
    """Returns an image of a white disc in the middle of a black background."""
    image = np.zeros((height, width), np.uint8)
    cv2.circle(image, (width // 2, height // 2), min(width, height) // 3, 255, cv2.FILLED)
    return image


def extent(image: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(image > 127)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


@pytest.mark.parametrize("size", [(400, 600), (1514, 2044), (900, 500)])
@pytest.mark.parametrize("target", [128, 256, 512])
def test_a_circle_squashed_to_a_square_is_a_circle_again(size, target):
    width, height = size
    squashed = cv2.resize(disc(width, height), (299, 299), interpolation=cv2.INTER_AREA)
    chosen = Preprocessing(height=target, width=target)
    across, down = extent(preprocess(Radiograph(squashed, aspect=width / height), chosen))
    assert across == pytest.approx(down, abs=2)
    assert across == pytest.approx(2 / 3 * min(width, height) / max(width, height) * target, abs=2)
    # Without a known aspect it stays an ellipse.
    across, down = extent(preprocess(Radiograph(squashed), chosen))
    assert across / down == pytest.approx(height / width, rel=0.03)


def test_padding_is_black_and_squash_has_none(hand_pixels):
    bright = Radiograph(np.maximum(hand_pixels, 30))
    padded = preprocess(bright, Preprocessing(clahe=True))
    x, y, across, down = geometry(bright, Preprocessing()).placed
    assert (x, y, across, down) == (25, 0, 205, 256)
    assert not padded[:, :x].any()
    assert not padded[:, x + across :].any()
    assert padded[:, x : x + across].min() > 0
    assert preprocess(bright, Preprocessing(fit="squash")).min() > 0


def test_clahe_does_not_see_the_padding(hand_pixels):
    narrow = Radiograph(hand_pixels[:, 64:192])
    padded = preprocess(narrow, Preprocessing(clahe=True))
    x, _, across, _ = geometry(narrow, Preprocessing()).placed
    alone = preprocess(narrow, Preprocessing(height=256, width=across, fit="squash", clahe=True))
    np.testing.assert_array_equal(padded[:, x : x + across], alone)


@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("chosen", EVERY_KIND, ids=str)
def test_the_container_of_the_pixels_does_not_matter(hand_pixels, chosen, scale):
    shallow = cv2.resize(hand_pixels, None, fx=scale, fy=scale)
    shallow[0, 0] = 255
    plain = preprocess(Radiograph(shallow), chosen)
    assert plain.dtype == np.uint8
    assert plain.shape == (chosen.height, chosen.width)
    for white in (255, 65535):
        deep = np.rint(shallow * (white / 255)).astype(np.uint16)
        np.testing.assert_array_equal(preprocess(Radiograph(deep, white), chosen), plain)
    deep = np.rint(shallow * (4095 / 255)).astype(np.uint16)
    difference = np.abs(
        preprocess(Radiograph(deep, estimate_white(deep)), chosen).astype(int) - plain
    )
    if chosen.clahe:
        # CLAHE amplifies the difference of a pixel that rounds to the next gray level.
        assert difference.mean() < 0.6
    else:
        assert difference.max() <= 1


@pytest.mark.parametrize("chosen", EVERY_KIND, ids=str)
def test_the_same_input_gives_the_same_output_and_stays_as_it_was(hand_pixels, chosen):
    radiograph = Radiograph(hand_pixels.copy())
    first, second = (preprocess(radiograph, chosen) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(radiograph.pixels, hand_pixels)


@pytest.mark.parametrize("contrast", ["stretch", "centre"])
def test_a_dark_and_faint_radiograph_becomes_as_clear_as_a_bright_one(hand_pixels, contrast):
    chosen = Preprocessing(contrast=contrast)
    deep = hand_pixels.astype(np.uint16) * 257
    dark = np.rint(deep * 0.15 + 2000).astype(np.uint16)
    bright, lifted = (
        preprocess(Radiograph(pixels, 65535), chosen).astype(int) for pixels in (deep, dark)
    )
    assert np.abs(bright - lifted).mean() < 2
    assert np.percentile(lifted, 99) > 200


def test_a_resize_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (1000, 500))
    small = preprocess(Radiograph(stripes), Preprocessing(height=64, width=64, fit="squash"))
    assert np.ptp(small.astype(int)) <= 8
    # The same if one side shrinks and the other grows.
    small = preprocess(Radiograph(stripes[:50]), Preprocessing(height=64, width=64, fit="squash"))
    assert np.ptp(small.astype(int)) <= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 7), (40, 4000)])
@pytest.mark.parametrize("chosen", EVERY_KIND, ids=str)
def test_odd_sizes_and_flat_images_are_treated_like_any_other(size, chosen):
    for level in (0, 7, 255):
        image = preprocess(Radiograph(np.full(size, level, np.uint8)), chosen)
        assert image.shape == (chosen.height, chosen.width)
        if not chosen.clahe:
            assert image.max() == level


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from(EVERY_KIND),
    st.none() | st.floats(0.1, 10),
    st.integers(0, 2**32 - 1),
)
def test_any_pixels_give_an_image_of_the_size_asked_for(width, height, chosen, aspect, seed):
    pixels = np.random.default_rng(seed).integers(0, 65536, (height, width), np.uint16)
    image = preprocess(Radiograph(pixels, 65535, aspect=aspect), chosen)
    assert image.shape == (chosen.height, chosen.width)
    assert image.dtype == np.uint8


def test_resolution_changes_little(drawn_hand):
    large = cv2.resize(drawn_hand.pixels, None, fx=5.3, fy=5.3, interpolation=cv2.INTER_CUBIC)
    for chosen in EVERY_KIND[:4]:
        one, other = (
            preprocess(Radiograph(pixels), chosen).astype(int)
            for pixels in (drawn_hand.pixels, large)
        )
        assert np.abs(one - other).mean() < 3, chosen


def test_cutting_out_the_hand_makes_it_larger(drawn_hand):
    small = np.zeros((640, 640), np.uint8)
    small[200:520, 150:406] = drawn_hand.pixels
    radiograph = Radiograph(small)
    whole, cut = (geometry(radiograph, Preprocessing(foreground=f)) for f in (False, True))
    assert cut.placed[3] * 320 / (cut.crop[3] - cut.crop[1]) > 1.5 * 320 * whole.placed[3] / 640
    place = geometry(replace(radiograph, aspect=0.5), Preprocessing(foreground=True, width=200))
    across, down = place.crop[2] - place.crop[0], place.crop[3] - place.crop[1]
    assert place.placed[2] / place.placed[3] == pytest.approx(0.5 * across / down, rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": 100_000},
        {"fit": "crop"},
        {"clahe_clip_limit": 0},
        {"clahe_clip_limit": math.nan},
        {"foreground_margin": -1},
        {"contrast": "auto"},
        {"clip_limit": 2},
        {"clahe": True, "clahe_tiles": 64, "height": 128},
        {"rows": True},
        {"clahe_tiles": True},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Preprocessing(**wrong)


def test_every_setting_is_described():
    for name, field in Preprocessing.model_fields.items():
        assert field.description, name


def test_a_radiograph_of_few_rows_stays_as_sharp_as_it_is():
    grain = np.random.default_rng(0).integers(0, 256, (300, 240), np.uint8)
    plain, soft = (preprocess(Radiograph(grain), Preprocessing(rows=r)) for r in (0, 300))
    np.testing.assert_array_equal(plain, soft)


@pytest.mark.parametrize("aspect", [None, 0.8])
def test_a_radiograph_of_many_rows_becomes_as_soft_as_one_of_few(aspect):
    # An edge 4 times as sharp as any that a model trained on 300 rows has seen.
    tall = np.zeros((1200, 960 if aspect is None else 1200), np.uint8)
    tall[600:] = 200
    edge = Preprocessing(height=1024, width=1024, rows=300)
    column = preprocess(Radiograph(tall, aspect=aspect), edge)[:, 512].astype(float)
    rise = np.abs(np.diff(column))
    places = np.arange(len(rise))
    middle = (rise * places).sum() / rise.sum()
    width = math.sqrt((rise * (places - middle) ** 2).sum() / rise.sum()) / 1024
    assert width == pytest.approx(0.5 / 300, rel=0.15)


def test_points_are_told_to_lie_where_their_pixels_are_put(drawn_hand):
    """Holds also if the radiograph is smoothed before the hand is located."""
    settings = Preprocessing(foreground=True, fit="squash", rows=60, height=512, width=512)
    sharp = settings.model_copy(update={"rows": 0})
    moved = 0
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(0, 45, drawn_hand.pixels.shape)
        pixels = np.clip(drawn_hand.pixels + noise, 0, 255).astype(np.uint8)
        marked = pixels.copy()
        marked[158:163, 118:123] = 255 - marked[158:163, 118:123]
        for chosen in (settings, sharp):
            place = geometry(Radiograph(pixels), chosen)
            if place != geometry(Radiograph(marked), chosen):
                continue
            shown, plain = (preprocess(Radiograph(p), chosen) for p in (marked, pixels))
            change, at = np.abs(shown.astype(float) - plain), np.arange(512) + 0.5
            rows, columns = (np.average(at, weights=change.sum(a)) for a in (1, 0))
            mark = np.array((120.5 / 256, 160.5 / 320))
            expected = 512 * (place.frame[:, :2] @ mark + place.frame[:, 2])
            assert (columns, rows) == pytest.approx(tuple(expected), abs=2)
        moved += geometry(Radiograph(pixels), settings) != geometry(Radiograph(pixels), sharp)
    assert moved, "softness made no difference, so nothing was tried"


def test_the_margin_around_a_hand_is_as_wide_aside_as_it_is_said_to_be():
    plate = np.zeros((640, 640), np.uint8)
    hand = draw_hand(120, True, np.random.default_rng(3), nuisances=NO_NUISANCES)
    plate[160:480, 190:446] = np.where(hand.skin > 0.5, hand.pixels, 0)
    close, wide = (
        geometry(Radiograph(plate), Preprocessing(foreground=True, foreground_margin=margin)).crop
        for margin in (0.0, 0.2)
    )
    for low, high in ((0, 2), (1, 3)):
        assert wide[high] - wide[low] == pytest.approx(1.4 * (close[high] - close[low]), abs=3)
        assert wide[high] + wide[low] == pytest.approx(close[high] + close[low], abs=3)
