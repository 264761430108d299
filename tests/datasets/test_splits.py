import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.datasets.splits import assign_folds, choose, set_aside
from boneage_cli.errors import BoneageError


def radiographs(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [str(1377 + number) for number in range(count)],
            "boneage": np.clip(rng.normal(127, 41, count).round(), 1, 228),
            "male": pd.array(rng.random(count) < 0.54, dtype="boolean"),
        }
    )


@given(st.integers(60, 400), st.integers(0, 1000), st.sampled_from([0.1, 0.2, 0.5]))
@settings(deadline=None, max_examples=40)
def test_a_validation_split_has_the_wanted_size_and_the_sexes_of_the_whole(count, seed, fraction):
    manifest = radiographs(count, seed)
    chosen = set_aside(manifest, fraction, seed)
    assert chosen.sum() == round(count * fraction)
    share = manifest["male"].mean()
    assert abs(manifest["male"][chosen].sum() - share * chosen.sum()) <= 2


def test_a_validation_split_has_the_ages_of_the_whole():
    manifest = radiographs(3000)
    chosen = set_aside(manifest, 0.1, 0)
    for male in (True, False):
        sex = manifest["male"] == male
        inside, whole = manifest[chosen & sex]["boneage"], manifest[sex]["boneage"]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert abs(inside.quantile(share) - whole.quantile(share)) < 3


def test_the_seed_alone_decides_and_not_the_order_of_the_rows():
    manifest = radiographs(300)
    shuffled = manifest.sample(frac=1, random_state=1)
    for divide in (lambda m, s: set_aside(m, 0.1, s), lambda m, s: assign_folds(m, 5, s)):
        first = divide(manifest, 3)
        pd.testing.assert_series_equal(divide(shuffled, 3).sort_index(), first)
        assert not divide(manifest, 4).equals(first)


@given(st.integers(5, 300), st.integers(2, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_folds_are_equally_large_and_alike_in_sex(count, folds, seed):
    manifest = radiographs(count, seed)
    fold = assign_folds(manifest, folds, seed)
    sizes = fold.value_counts()
    assert set(fold) == set(range(folds))
    assert sizes.max() - sizes.min() <= 1
    boys = manifest["male"].astype(int).groupby(fold).sum()
    assert boys.max() - boys.min() <= 2


def test_folds_are_alike_in_age():
    manifest = radiographs(2000)
    means = manifest["boneage"].groupby(assign_folds(manifest, 5, 0)).mean()
    assert means.max() - means.min() < 1


@given(st.lists(st.integers(0, 30), min_size=60, max_size=120), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_a_patient_is_never_on_both_sides(patients, seed):
    manifest = radiographs(len(patients))
    # Some radiographs have no patient and are units of their own.
    manifest["patient"] = [str(patient) if patient else None for patient in patients]
    named = manifest["patient"].notna()
    for parts in (set_aside(manifest, 0.2, seed), assign_folds(manifest, 4, seed)):
        assert (parts[named].groupby(manifest["patient"][named]).nunique() == 1).all()


def test_unknown_sexes_are_divided_too():
    manifest = radiographs(100)
    manifest.loc[::2, "male"] = pd.NA
    fold = assign_folds(manifest, 5, 0)
    unknown = manifest["male"].isna().groupby(fold).sum()
    assert unknown.max() - unknown.min() <= 2


def test_radiographs_of_which_no_sex_is_known_are_divided_by_age():
    manifest = radiographs(60)
    manifest["male"] = pd.array([pd.NA] * 60, dtype="boolean")
    assert set_aside(manifest, 0.2, 0).sum() == 12
    assert assign_folds(manifest, 3, 0).value_counts().tolist() == [20, 20, 20]
    assert len(choose(manifest, 10, 0)) == 10


def test_no_fraction_sets_nothing_aside_and_a_small_one_at_least_one():
    assert not set_aside(radiographs(50), 0, 0).any()
    assert set_aside(radiographs(5), 0.01, 0).sum() == 1
    assert not set_aside(radiographs(1), 0.5, 0).any()


@pytest.mark.parametrize("fraction", [-0.1, 0.6, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(BoneageError, match="validation fraction"):
        set_aside(radiographs(10), fraction, 0)


@pytest.mark.parametrize("folds", [0, 1, 11])
def test_folds_that_cannot_be_filled_are_refused(folds):
    with pytest.raises(BoneageError, match="choose 2 to 10"):
        assign_folds(radiographs(10), folds, 0)


@given(st.integers(60, 300), st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_a_choice_has_the_wanted_size_and_the_sexes_of_the_whole(count, wanted, seed):
    manifest = radiographs(count, seed)
    chosen = choose(manifest, wanted, seed)
    assert len(chosen) == wanted
    assert chosen["id"].is_unique
    assert abs(chosen["male"].sum() - manifest["male"].mean() * wanted) <= 2
    shuffled = manifest.sample(frac=1, random_state=1)
    assert set(choose(shuffled, wanted, seed)["id"]) == set(chosen["id"])


def test_more_than_there_are_cannot_be_chosen():
    with pytest.raises(BoneageError, match="11 of 10 radiographs"):
        choose(radiographs(10), 11, 0)


def test_an_id_that_stands_twice_is_chosen_once():
    manifest = pd.concat([radiographs(10), radiographs(1)], ignore_index=True)
    assert sorted(choose(manifest, 10, 0)["id"]) == sorted(radiographs(10)["id"])
    with pytest.raises(BoneageError, match="11 of 10 radiographs"):
        choose(manifest, 11, 0)


def test_of_equal_ages_it_is_drawn_who_is_chosen_and_not_in_the_order_of_ids():
    manifest = radiographs(300).assign(boneage=120.0, male=True)
    for chosen in (
        manifest["id"].isin(choose(manifest, 30, 0)["id"]),
        set_aside(manifest, 0.1, 0),
    ):
        # If ties were in the order of ids, exactly one of every ten neighbours would be chosen.
        per_ten = chosen.to_numpy().reshape(30, 10).sum(1)
        assert per_ten.sum() == 30
        assert per_ten.max() > 1


def test_two_seeds_choose_unlike():
    manifest = radiographs(300)
    first, second = (set(choose(manifest, 60, seed)["id"]) for seed in (0, 1))
    assert first != second
    assert not set_aside(manifest, 0.2, 0).equals(set_aside(manifest, 0.2, 1))
