"""Tests of mapping points from a radiograph to the network's image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.imaging.geometry import Geometry, fit_geometry
from boneage_cli.imaging.preprocessing import Preprocessing, geometry, preprocess
from boneage_cli.imaging.radiograph import Radiograph

sides = st.integers(1, 5000)
targets = st.integers(32, 1024)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    left, right = sorted(draw(st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2))))
    top, bottom = sorted(draw(st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2))))
    return left, top, right, bottom


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    return fit_geometry(
        (draw(sides), draw(sides)),
        (draw(targets), draw(targets)),
        aspect=draw(st.none() | st.floats(0.05, 20)),
        box=draw(boxes()),
        keep_aspect=draw(st.booleans()),
    )


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=100)
@given(geometries(), points)
def test_points_of_what_is_shown_stay_inside_the_placed_part(place, fractions):
    left, top, right, bottom = place.crop
    width, height = place.source
    x, y, across, down = place.placed
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    shown = np.array(fractions) * (right - left, bottom - top) + (left, top)
    there = shown / (width, height) @ place.frame[:, :2].T + place.frame[:, 2]
    there *= place.target
    assert (there >= np.array((x, y)) - 1e-6).all()
    assert (there <= np.array((x + across, y + down)) + 1e-6).all()


@settings(deadline=None, max_examples=100)
@given(sides, sides, targets, targets, st.none() | st.floats(0.2, 5))
def test_padding_keeps_the_aspect_and_fills_one_side(width, height, across, down, aspect):
    place = fit_geometry((width, height), (across, down), aspect=aspect)
    x, y, placed_across, placed_down = place.placed
    assert placed_across == across or placed_down == down
    assert abs(across - placed_across - 2 * x) <= 1
    assert abs(down - placed_down - 2 * y) <= 1
    true = aspect or width / height
    # The shorter side is rounded to whole pixels, at least one.
    assert abs(placed_across - min(across, true * down)) <= 1
    assert abs(placed_down - min(down, across / true)) <= 1


@settings(deadline=None, max_examples=100)
@given(sides, sides, targets, targets)
def test_what_is_cut_for_speed_is_less_than_a_pixel_of_the_result(width, height, across, down):
    place = fit_geometry((width, height), (across, down))
    left, top, right, bottom = place.crop
    _, _, placed_across, placed_down = place.placed
    assert (width - (right - left)) * placed_across / width < 0.5
    assert (height - (bottom - top)) * placed_down / height < 0.5


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (1201, 1607), (64, 500)])
def test_a_dot_appears_where_the_geometry_says(size, fit):
    width, height = size
    pixels = np.zeros((height, width), np.uint8)
    spot = max(2, width // 40), max(2, height // 40)
    column, row = int(0.7 * width), int(0.2 * height)
    pixels[row : row + spot[1], column : column + spot[0]] = 255
    radiograph = Radiograph(pixels)
    chosen = Preprocessing(height=160, width=128, fit=fit)
    image = preprocess(radiograph, chosen).astype(float)
    rows, columns = np.indices(image.shape) + 0.5
    seen = (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()
    centre = (column + spot[0] / 2) / width, (row + spot[1] / 2) / height
    frame = geometry(radiograph, chosen).frame
    expected = (frame[:, :2] @ centre + frame[:, 2]) * (128, 160)
    np.testing.assert_allclose(seen, expected, atol=0.15)
