"""Tests of the fingerprints of training radiographs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.fingerprints import all_of, fingerprints, is_among


def table(*rows: tuple[str, float | None, bool | None]) -> pd.DataFrame:
    ids, ages, males = zip(*rows, strict=True) if rows else ((), (), ())
    return pd.DataFrame(
        {
            "id": ids,
            "boneage": pd.Series(ages, dtype=float),
            "male": pd.Series(males, dtype="boolean"),
        }
    )


TRAINED = table(("4360", 126.5, True), ("4361", None, False), ("im\udcff", 12.0, None))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("4360", 126.5, True), True),
        (("4360", 126.5, None), True),
        (("4360", None, True), True),
        (("4361", None, False), True),
        (("im\udcff", 12.0, True), True),
        # Other data sets may use the same ids.
        (("4360", 90.0, True), False),
        (("4360", None, False), False),
        (("4361", None, None), False),
        (("4362", 126.5, True), False),
    ],
)
def test_a_radiograph_is_known_by_its_id_with_its_age_or_else_its_sex(
    row: tuple[str, float | None, bool | None], expected: bool
) -> None:
    assert is_among(table(row), fingerprints(TRAINED)).tolist() == [expected]


def test_those_of_several_trainings_are_all_known() -> None:
    other = table(("1", 1.0, True))
    both = all_of([fingerprints(TRAINED), None, fingerprints(other)])
    assert both is not None
    assert is_among(pd.concat([TRAINED, other]), both).all()
    assert all_of([None, None]) is None


def test_others_are_hardly_ever_mistaken_for_them() -> None:
    numbers = np.arange(20_000)
    ages = pd.Series(numbers % 228, dtype=float)
    every = pd.DataFrame(
        {"id": numbers.astype(str), "boneage": ages, "male": (numbers % 2).astype(bool)}
    )
    assert is_among(every[10_000:], fingerprints(every[:10_000])).sum() <= 1
    assert len(fingerprints(table())) == 0
