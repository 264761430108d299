"""Tests of resampling a radiograph."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.warping import warp


def test_pixels_are_untouched_where_nothing_moves():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)
    np.testing.assert_array_equal(warp(Radiograph(pixels), np.eye(2, 3), 50, 40), pixels)


def test_fine_stripes_become_gray_and_not_coarse_stripes_when_the_view_is_small():
    stripes = np.tile(np.array([0, 255], np.uint8), (512, 256))
    small = warp(Radiograph(stripes), np.eye(2, 3), 100, 100)
    assert small[5:-5, 5:-5].std() < 4


def test_a_strong_reduction_keeps_every_part_in_its_place():
    rows, columns = np.mgrid[:1001, :803]
    ramps = Radiograph((65535 * (0.7 * rows / 1001 + 0.3 * columns / 803)).astype(np.uint16), 65535)
    small = warp(ramps, np.eye(2, 3), 50, 40)
    y, x = (np.mgrid[:50, :40] + 0.5) / np.array([50, 40])[:, None, None]
    np.testing.assert_allclose(small, 255 * (0.7 * y + 0.3 * x), atol=2.5)


def test_what_lies_beyond_the_radiograph_is_black():
    bright = Radiograph(np.full((64, 64), 200, np.uint8))
    far = np.array([[1.0, 0, 5], [0, 1.0, 5]])
    assert warp(bright, far, 32, 32).max() == 0


@pytest.mark.parametrize("softness", [0.004, 0.008])
def test_softness_smooths_by_a_share_of_the_height_whatever_the_pixels(softness):
    pixels = np.zeros((1600, 1200), np.uint8)
    pixels[800:] = 200
    column = warp(Radiograph(pixels), np.eye(2, 3), 400, 300, softness=softness)[:, 150]
    rise = np.abs(np.diff(column.astype(float)))
    places = np.arange(len(rise))
    middle = (rise * places).sum() / rise.sum()
    width = math.sqrt((rise * (places - middle) ** 2).sum() / rise.sum()) / 400
    assert width == pytest.approx(math.hypot(softness, 0.45 / 400), rel=0.15)
