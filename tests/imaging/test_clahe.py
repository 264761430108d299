"""Tests of CLAHE."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_cli.imaging.clahe import apply_clahe


@pytest.mark.parametrize("shape", [(320, 256), (301, 211), (320, 250), (75, 64)])
@pytest.mark.parametrize(("clip_limit", "tiles"), [(2.0, 8), (2.0, 32), (40.0, 4), (0.5, 1)])
def test_16_bits_give_what_8_bits_give(drawn_hand, shape, clip_limit, tiles):
    pixels = cv2.resize(drawn_hand.pixels, shape[::-1])
    expected = cv2.createCLAHE(clip_limit, (tiles, tiles)).apply(pixels).astype(int)
    np.testing.assert_array_equal(apply_clahe(pixels, clip_limit, tiles, 255), expected)
    deep = apply_clahe(pixels.astype(np.uint16) * 257, clip_limit, tiles, 65535)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() <= 1
    twelve = apply_clahe(pixels.astype(np.uint16) * 16, clip_limit, tiles, 4080)
    assert np.abs(twelve / 16 - expected).max() <= 1


def test_16_bits_keep_levels_between_those_of_8(hand_pixels):
    smooth = cv2.GaussianBlur(hand_pixels.astype(np.float32), (0, 0), 5)
    deep = np.rint(smooth * 257).astype(np.uint16)
    equalised = apply_clahe(deep, 2.0, 8, 65535)
    assert len(np.unique(equalised)) > 4 * 256
    coarse = apply_clahe(np.rint(smooth).astype(np.uint8), 2.0, 8, 255).astype(int)
    assert np.abs(equalised / 257 - coarse).mean() < 2


def test_contrast_rises_where_it_was_low(hand_pixels):
    faint = (hand_pixels * 0.2 + 30).astype(np.uint8)
    assert apply_clahe(faint, 2.0, 8, 255).std() > 1.5 * faint.std()


def test_tiles_are_no_more_than_pixels():
    for shape in [(1, 1), (3, 200), (5, 5)]:
        for dtype in (np.uint8, np.uint16):
            assert apply_clahe(np.full(shape, 9, dtype), 2.0, 64, 255).shape == shape
