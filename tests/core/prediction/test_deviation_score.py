"""Tests of the standard deviation score."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.prediction.deviation_score import deviation_score


@pytest.mark.parametrize(
    ("bone_age", "age", "male", "score"),
    [
        (125.68, 120, True, 0),
        (125.68 + 9.79, 120, True, 1),
        (3.01 - 2 * 0.69, 3, True, -2),
        (206.21, 204, True, 0),
        (125.66, 120, False, 0),
        (189.44 + 7.31, 192, False, 1),
        # Halfway between 120 and 132 months.
        ((125.66 + 137.86) / 2 + (11.73 + 11.94) / 2, 126, False, 1),
    ],
)
def test_the_score_is_the_distance_from_the_mean_in_deviations(bone_age, age, male, score) -> None:
    assert deviation_score(bone_age, age, male) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("age", "male"), [(2.9, True), (204.1, True), (2.9, False), (192.1, False), (-1, True)]
)
def test_outside_the_reference_there_is_no_score(age: float, male: bool) -> None:
    assert deviation_score(100, age, male) is None


@settings(deadline=None)
@given(st.floats(3, 192), st.booleans(), st.floats(0, 200), st.floats(1, 30))
def test_an_older_hand_has_a_higher_score(age, male, bone_age, more) -> None:
    younger, older = (deviation_score(a, age, male) for a in (bone_age, bone_age + more))
    assert younger is not None
    assert older is not None
    assert older > younger
