"""Tests of the choice of radiographs for evaluating a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage_cli.datasets.labelled_split import labelled_split
from boneage_cli.datasets.manifest import write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tables of a data set without images: 10 training rows (8 of boys) and 40 test rows."""

    def rows(split: str, male: list[bool | None]) -> pd.DataFrame:
        names = [f"{split}-{number:02}" for number in range(len(male))]
        return pd.DataFrame(
            {
                "id": names,
                "path": [f"{split}/{name}.png" for name in names],
                "boneage": np.linspace(20, 200, len(male)),
                "male": pd.array(male, dtype="boolean"),
                "split": split,
            }
        )

    train = rows("train", [True] * 8 + [False] * 2)
    test = rows("test", [False] * 16 + [True] * 20 + [None] * 4)
    write_manifest(pd.concat([train, test]), tmp_path / "set")
    return tmp_path / "set"


def test_a_sample_has_the_sexes_and_ages_of_a_split_that_is_in_their_order(folder: Path) -> None:
    chosen = labelled_split(folder, "test", 10)
    assert chosen.chosen_of == 40
    assert chosen.manifest["male"].value_counts(dropna=False).to_dict() == {
        False: 4,
        True: 5,
        pd.NA: 1,
    }
    whole = labelled_split(folder, "test").manifest
    for male in (True, False):
        some, every = (each[each["male"] == male]["boneage"] for each in (chosen.manifest, whole))
        assert np.ptp(some) > 0.5 * np.ptp(every)
    pd.testing.assert_frame_equal(labelled_split(folder, "test", 10).manifest, chosen.manifest)


def test_the_share_of_boys_is_that_of_the_radiographs_to_train_on(folder: Path) -> None:
    assert labelled_split(folder, "test").boys_in_training == pytest.approx(0.8)
    table = pd.read_csv(folder / "train.csv")
    table["male"] = table["male"].astype(object).where(table.index % 8 != 0, None)
    table.to_csv(folder / "train.csv", index=False)
    # The sex of one boy and one girl is now unknown; they are not counted.
    assert labelled_split(folder, "test").boys_in_training == pytest.approx(7 / 8)


@pytest.mark.parametrize(("male", "left_out"), [(False, 20), (True, 16)])
def test_a_model_of_one_sex_is_measured_on_it_and_on_children_of_unknown_sex(
    folder: Path, male: bool, left_out: int
) -> None:
    chosen = labelled_split(folder, "test", male=male)
    assert chosen.of_other_sex == left_out
    assert chosen.manifest["male"].isna().sum() == 4
    assert set(chosen.manifest["male"].dropna()) == {male}
