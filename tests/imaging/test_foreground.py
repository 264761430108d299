"""Tests of finding the hand in the foreground."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage_cli.datasets.drawn_hands import draw_hand
from boneage_cli.imaging.foreground import find_foreground
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import read_radiograph_bytes

MARGIN = 0.05


def holds(box: tuple[float, float, float, float], points: np.ndarray) -> bool:
    first, last = np.array(box[:2]), np.array(box[2:])
    margin = MARGIN * (last - first)
    return bool(((points >= first - margin) & (points <= last + margin)).all())


def test_drawn_hands_are_inside_their_box_with_markers_and_borders_around_them():
    generator = np.random.default_rng(2)
    outside = 0
    areas = []
    for number in range(60):
        hand = draw_hand(generator.uniform(6, 216), number % 2 == 0, generator.spawn(1)[0])
        found = find_foreground(Radiograph(hand.pixels))
        assert found is not None
        outside += not holds(found.box, np.array(list(hand.landmarks.values())))
        left, top, right, bottom = found.box
        areas.append((right - left) * (bottom - top))
        # Bone must be the brightest part, not a drawn border, which may cover the forearm.
        bone = hand.pixels[40:-40][hand.bone[40:-40]]
        assert found.brightest == pytest.approx(np.percentile(bone, 97), rel=0.35)
    assert outside <= 1
    assert np.mean(areas) < 0.75


def test_real_hands_are_inside_their_box(shared_data):
    keypoints = pd.read_csv(shared_data / "keypoints.csv", index_col="id")
    names = {
        "middle": ["middle_tip_x", "middle_tip_y"],
        "thumb": ["thumb_tip_x", "thumb_tip_y"],
        "wrist": ["capitate_x", "capitate_y"],
    }
    inside = []
    with zipfile.ZipFile(shared_data / "rsna-train-299-a.zip") as archive:
        stored = set(archive.namelist())
        paths = {id: f"boneage-training-dataset/{id}.webp" for id in keypoints.index}
        for id in [id for id, path in paths.items() if path in stored][::6]:
            radiograph = read_radiograph_bytes(archive.read(paths[id]), str(id))
            found = find_foreground(radiograph)
            points = np.array([keypoints.loc[id, columns] for columns in names.values()], float)
            inside.append(found is None or holds(found.box, points))
    assert len(inside) > 100
    assert np.mean(inside) > 0.97


def test_a_hand_in_a_corner_of_a_gray_field_inside_a_frame_is_cut_out(drawn_hand):
    plate = np.full((600, 600), 120, np.uint8)
    cv2.rectangle(plate, (140, 140), (480, 560), 255, 6)
    plate[145:555, 145:475] = 15
    plate[200:520, 170:426] = np.maximum(drawn_hand.pixels, 15)
    found = find_foreground(Radiograph(plate))
    assert found is not None
    points = np.array(list(drawn_hand.landmarks.values())) * (256, 320) + (170, 200)
    assert holds(found.box, points / 600)
    left, top, right, bottom = found.box
    assert (right - left) * (bottom - top) < 0.4


def test_exposure_does_not_matter(drawn_hand):
    usual = find_foreground(Radiograph(drawn_hand.pixels.astype(np.uint16) * 257, 65535))
    dark = find_foreground(Radiograph(drawn_hand.pixels.astype(np.uint16) * 20, 65535))
    assert usual is not None
    assert dark is not None
    np.testing.assert_allclose(dark.box, usual.box, atol=0.03)
    assert dark.brightest == pytest.approx(usual.brightest * 20 / 257, rel=0.05)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_blank_image_has_no_hand(level):
    assert find_foreground(Radiograph(np.full((300, 200), level, np.uint8))) is None


def test_a_bright_rectangle_is_no_hand():
    field = np.zeros((300, 300), np.uint8)
    field[60:240, 80:220] = 150
    assert find_foreground(Radiograph(field)) is None
