from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.ages import look_like_other_units, parse_age, years_and_months
from boneage_cli.errors import BoneageError


@pytest.mark.parametrize(
    ("months", "text"),
    [
        (126.5, "10 years 6 months"),  # BoneXage's format
        (143.6, "12 years 0 months"),  # never 11 years 12 months
        (143.4, "11 years 11 months"),
        (0.2, "0 years 0 months"),
        (-0.4, "0 years 0 months"),
        (-7.0, "-0 years 7 months"),
        (228, "19 years 0 months"),
    ],
)
def test_an_age_reads_as_years_and_the_nearest_whole_month(months, text):
    assert years_and_months(months) == text


@settings(deadline=None)
@given(st.floats(-60, 300))
def test_the_text_is_within_half_a_month_of_the_age_and_has_less_than_twelve_months(months):
    text = years_and_months(months)
    assert abs(parse_age(text) - months) <= 0.5
    assert int(text.split()[2]) < 12


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("10 years 6 months", 126),
        ("10y 6m", 126),
        ("10Y6M", 126),
        ("10 years, 6 months", 126),
        ("1 year 1 month", 13),
        ("10.5 years", 126),
        ("126.5 months", 126.5),
        (" 126.5 ", 126.5),
    ],
)
def test_ages_are_read_in_the_ways_people_write_them(text, months):
    assert parse_age(text) == pytest.approx(months)


@pytest.mark.parametrize("text", ["", "-", "ten years", "10 5", "10 days", "6 months 10 years"])
def test_what_is_no_age_is_refused_with_the_way_out(text):
    with pytest.raises(BoneageError, match="10 years 6 months"):
        parse_age(text)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_either_an_age_or_refused(text):
    try:
        months = parse_age(text)
    except BoneageError:
        return
    assert isinstance(months, float)


@pytest.mark.parametrize(
    ("age", "bone_age", "other"),
    [
        # Bone age is not informative in adults.
        (480, 220, False),
        (100, 159, False),
        (100, 161, True),
        (9, 114, True),
        (1201, 200, True),
    ],
)
def test_units_are_doubted_of_bones_that_are_far_ahead_and_not_of_an_adult_s(age, bone_age, other):
    assert look_like_other_units(age, bone_age) is other
