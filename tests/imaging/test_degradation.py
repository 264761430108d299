"""Tests of the degraded copies used in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.imaging.degradation import degrade
from boneage_cli.imaging.radiograph import Radiograph, aspect_of

SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module", params=[np.uint8, np.uint16])
def radiograph(request: pytest.FixtureRequest) -> Radiograph:
    white = 255 if request.param is np.uint8 else 4095
    rows, columns = np.mgrid[:300, :240]
    wave = 0.5 + 0.4 * np.sin(rows / 9) * np.sin(columns / 7)
    return Radiograph((wave * white).astype(request.param), white=white, aspect=0.75, male=True)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS)
def test_a_copy_is_still_of_the_same_child(radiograph: Radiograph, seed: int) -> None:
    before = radiograph.pixels.copy()
    copy = degrade(radiograph, np.random.default_rng(seed))
    assert np.array_equal(radiograph.pixels, before), "the radiograph stays as it was"
    assert aspect_of(copy) == pytest.approx(0.75)
    assert copy.male is True
    assert copy.pixels.max() <= copy.white
    assert copy.pixels.std() > 0, "something of the hand is left"


def test_copies_are_worse(radiograph: Radiograph) -> None:
    copies = [degrade(radiograph, np.random.default_rng(seed)) for seed in range(40)]
    changed = [not np.array_equal(copy.pixels, radiograph.pixels) for copy in copies]
    # Occasionally a copy is nearly unchanged.
    assert np.mean(changed) > 0.95


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_the_same_seed_gives_the_same_copy(radiograph: Radiograph, seed: int) -> None:
    first, second = (degrade(radiograph, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
