"""Tests of prediction intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.intervals import (
    LEVELS,
    Calibration,
    calibrate,
    check_level,
    coverage,
    random_parts,
)
from boneage_cli.errors import BoneageError


def predictions(count: int, seed: int) -> pd.DataFrame:
    """Returns predictions whose errors grow with age and are larger in boys."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(10, 220, count)
    male = rng.random(count) < 0.5
    spread = (2 + true / 20) * np.where(male, 1.5, 1)
    return pd.DataFrame(
        {
            "true": true,
            "predicted": true + rng.laplace(0, spread),
            "sex": np.where(male, "M", "F"),
        }
    )


def share_held(calibration: Calibration, table: pd.DataFrame, level: int) -> float:
    return float(
        np.mean(
            [
                abs(row.predicted - row.true)
                <= calibration.half_width(row.predicted, row.sex == "M", level)
                for row in table.itertuples()
            ]
        )
    )


@pytest.mark.parametrize("level", [50, 80, 90, 95])
def test_intervals_hold_as_often_as_they_say_in_every_group(level: int) -> None:
    calibration = calibrate(predictions(4000, 0), "drawn")
    fresh = predictions(8000, 1)
    assert share_held(calibration, fresh, level) == pytest.approx(level / 100, abs=0.02)
    for sex in "MF":
        for low in (0, 5, 10, 15):
            in_band = fresh["predicted"].between(12 * low, 12 * (low + 5) if low < 15 else 999)
            rows = fresh[(fresh["sex"] == sex) & in_band]
            assert share_held(calibration, rows, level) == pytest.approx(level / 100, abs=0.06)


@given(st.floats(-20, 400), st.sampled_from([True, False, None]), st.sampled_from(LEVELS))
@settings(deadline=None, max_examples=60)
def test_every_age_has_an_interval_and_a_higher_level_no_narrower_one(months, male, level) -> None:
    calibration = CALIBRATION
    width = calibration.half_width(months, male, level)
    assert np.isfinite(width)
    assert width >= 0
    assert width <= calibration.half_width(months, male, LEVELS[-1])


CALIBRATION = calibrate(predictions(300, 2), "drawn")


def test_a_small_group_takes_the_width_of_a_larger_one() -> None:
    table = predictions(400, 3)
    girls = table[table["sex"] == "F"].head(5)
    boys = table[table["sex"] == "M"]
    calibration = calibrate(pd.concat([girls, boys]), "drawn")
    assert "F" not in calibration.widths
    band = calibration.half_width(100, None, 90)
    assert calibration.half_width(100, False, 90) == band


def test_too_few_radiographs_are_refused() -> None:
    with pytest.raises(BoneageError, match="12 radiographs are too few"):
        calibrate(predictions(12, 0), "drawn")


def test_a_calibration_survives_being_written_down() -> None:
    again = Calibration.from_dict(CALIBRATION.to_dict())
    assert again.images == CALIBRATION.images
    assert again.source == "drawn"
    assert again.half_width(100, True, 90) == pytest.approx(
        CALIBRATION.half_width(100, True, 90), abs=1e-3
    )


def test_a_calibration_of_other_levels_is_not_taken_for_one_of_these() -> None:
    other = CALIBRATION.to_dict() | {"levels": [60, 99]}
    with pytest.raises(ValueError, match=r"\[60, 99\] per cent"):
        Calibration.from_dict(other)


@pytest.mark.parametrize("level", [0, 49, 100, 900])
def test_levels_that_are_not_kept_are_refused(level: int) -> None:
    with pytest.raises(BoneageError, match="from 50 to 99"):
        check_level(level)


def test_coverage_is_measured_on_parts_that_were_not_calibrated_on() -> None:
    table = predictions(2000, 4)
    parts = np.arange(2000) % 5
    # The errors of one fold are ten times as large, unlike those it is calibrated on.
    odd = table.copy()
    odd.loc[parts == 0, "predicted"] = (odd["true"] + 10 * (odd["predicted"] - odd["true"]))[
        parts == 0
    ]
    images, held, _ = coverage(table, parts, 90)["all"]
    assert images == 2000
    assert held == pytest.approx(0.9, abs=0.02)
    assert coverage(odd, parts, 90)["all"][1] < 0.87


def test_a_level_that_a_group_is_too_small_for_is_taken_from_a_larger_one() -> None:
    # For 99 radiographs the largest error is the 99 % quantile; for fewer there is none.
    enough, too_few = calibrate(predictions(120, 3), "drawn"), calibrate(predictions(98, 3), "few")
    last = 99 - LEVELS[0]
    assert enough.widths["M"][last] is None
    assert enough.half_width(100, True, 99) >= enough.widths["all"][last]
    enough.check(99)
    assert too_few.widths["all"][last] is None
    with pytest.raises(BoneageError, match=r"--interval 99: .*too few radiographs"):
        too_few.check(99)
    too_few.check(98)


def test_a_level_has_its_own_half_width_and_not_its_neighbour_s() -> None:
    numbered = Calibration({"all": tuple(map(float, range(len(LEVELS))))}, {"all": 500}, "made")
    for level in (50, 90, 99):
        assert numbered.half_width(100, None, level) == level - 50


def test_a_level_that_one_sex_lacks_is_refused_before_anything_is_predicted() -> None:
    whole = tuple(map(float, range(len(LEVELS))))
    for girls, boys in ((whole, (*whole[:-1], None)), ((*whole[:-1], None), whole)):
        both = Calibration({"F": girls, "M": boys}, {"F": 120, "M": 60}, "a site")
        with pytest.raises(BoneageError, match=r"--interval 99: .*too few"):
            both.check(99)
        both.check(98)


def test_the_width_of_an_interval_is_from_its_lower_to_its_upper_end() -> None:
    true = 10.0 + np.arange(200)
    sevens = np.where(np.arange(200) % 2, 7.0, -7.0)
    table = pd.DataFrame({"true": true, "predicted": true + sevens, "sex": ["F", "M"] * 100})
    for images, held, width in coverage(table, np.arange(200) % 5, 90).values():
        assert images > 0
        assert held == 1
        assert width == pytest.approx(14)


@pytest.mark.parametrize("count", [40, 95, 1000])
def test_parts_by_chance_are_ten_equal_ones_and_the_same_each_time(count: int) -> None:
    parts = random_parts(count)
    sizes = np.bincount(parts, minlength=10)
    assert len(sizes) == 10
    assert sizes.max() - sizes.min() <= 1
    assert (parts == random_parts(count)).all()
    assert (np.diff(parts) != np.diff(np.arange(count) % 10)).any()


def test_a_group_without_a_width_takes_that_of_its_band_before_that_of_its_sex() -> None:
    widths = {"5–10 years": 5.0, "F": 9.0, "all": 7.0}
    calibration = Calibration(
        {name: (width,) * len(LEVELS) for name, width in widths.items()},
        dict.fromkeys(widths, 500),
        "made",
    )
    assert calibration.half_width(100, False, 90) == 5
    assert calibration.half_width(150, False, 90) == 9
    assert calibration.half_width(150, True, 90) == 7


def test_groups_are_of_the_predicted_age_which_is_all_that_a_prediction_has() -> None:
    table = pd.DataFrame({"true": 100.0, "predicted": 200.0, "sex": "F"}, index=range(50))
    assert "15 years and more" in calibrate(table, "made").widths
    assert "5–10 years" not in calibrate(table, "made").widths
