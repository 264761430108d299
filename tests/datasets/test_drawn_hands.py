from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boneage_cli.datasets.demo import fetch_demo
from boneage_cli.datasets.drawn_hands import (
    NO_NUISANCES,
    DrawnHand,
    Nuisances,
    draw_hand,
    write_demo,
)
from boneage_cli.datasets.manifest import COLUMNS, read_manifest
from boneage_cli.datasets.skeleton import CLOSING, ONSET, maturation
from boneage_cli.errors import BoneageError

months = st.floats(0, 228)


def draw(
    boneage: float, male: bool, seed: int = 0, nuisances: Nuisances = NO_NUISANCES
) -> DrawnHand:
    return draw_hand(boneage, male, np.random.default_rng(seed), nuisances=nuisances)


def at(image: np.ndarray, point: tuple[float, float]) -> np.generic:
    """Returns the pixel at a landmark."""
    height, width = image.shape
    return image[int(point[1] * height), int(point[0] * width)]


def seen_from(name: str, male: bool) -> int:
    return next(age for age in range(228) if maturation(age, male).growth[name] > 0)


def closed_from(name: str, male: bool) -> int:
    return next(age for age in range(229) if maturation(age, male).fusion[name] >= 1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "demo"
    write_demo(folder, train=24, validation=24, test=24, seed=3)
    return folder


@pytest.mark.parametrize("male", [True, False])
def test_carpal_bones_appear_in_the_textbook_order(male: bool) -> None:
    order = ["capitate", "hamate", "triquetrum", "lunate", "scaphoid", "trapezoid", "pisiform"]
    ages = [seen_from(name, male) for name in order]
    assert ages == sorted(ages)
    assert len(set(ages)) == len(ages)


@pytest.mark.parametrize("male", [True, False])
def test_epiphyses_appear_in_the_textbook_order(male: bool) -> None:
    order = ["radius", "proximal_3", "metacarpal_2", "middle_3", "distal_3", "ulna", "sesamoid"]
    ages = [seen_from(name, male) for name in order]
    assert ages == sorted(ages)


@pytest.mark.parametrize("male", [True, False])
def test_growth_plates_close_from_the_fingertips_to_the_radius(male: bool) -> None:
    order = ["distal_3", "proximal_3", "middle_3", "ulna", "radius"]
    ages = [closed_from(name, male) for name in order]
    assert ages == sorted(ages)
    assert len(set(ages)) == len(ages)
    assert closed_from("metacarpal_3", male) == closed_from("proximal_3", male)


@pytest.mark.parametrize("name", ONSET)
def test_every_centre_appears_earlier_in_girls(name: str) -> None:
    assert seen_from(name, male=False) < seen_from(name, male=True)


@pytest.mark.parametrize("bone", CLOSING)
def test_every_growth_plate_closes_a_year_or_more_earlier_in_girls(bone: str) -> None:
    name = bone if bone in ONSET else f"{bone}_3"
    assert closed_from(name, male=False) <= closed_from(name, male=True) - 12


@settings(deadline=None, max_examples=50)
@given(younger=months, older=months, male=st.booleans())
def test_nothing_in_a_hand_becomes_younger_with_bone_age(
    younger: float, older: float, male: bool
) -> None:
    younger, older = sorted((younger, older))
    before, after = maturation(younger, male), maturation(older, male)
    for name in ONSET:
        assert before.growth[name] <= after.growth[name]
        assert before.fusion.get(name, 0) <= after.fusion.get(name, 0)
    assert before.youth >= after.youth
    assert before.mineral <= after.mineral


@pytest.mark.parametrize("male", [True, False])
def test_the_area_of_bone_grows_with_bone_age(male: bool) -> None:
    areas = [draw(age, male).bone.sum() for age in range(3, 200, 14)]
    assert (np.diff(areas) > 0).all()


def test_a_girl_has_more_bone_in_the_wrist_than_a_boy_of_the_same_bone_age() -> None:
    for age in (24, 60, 96, 132):
        assert carpal_bone(draw(age, False)) > carpal_bone(draw(age, True))


def carpal_bone(hand: DrawnHand) -> float:
    """Returns the fraction of the carpal region that is bone."""
    height, width = hand.bone.shape
    xmin, ymin, xmax, ymax = np.array(hand.regions["carpal"]) * (width, height, width, height)
    return float(hand.bone[int(ymin) : int(ymax), int(xmin) : int(xmax)].mean())


@settings(deadline=None, max_examples=40)
@given(boneage=months, male=st.booleans(), seed=st.integers(0, 2**32 - 1))
@example(boneage=137.0, male=False, seed=28700)
def test_landmarks_lie_on_the_hand_whatever_the_pose(boneage: float, male: bool, seed: int) -> None:
    hand = draw_hand(boneage, male, np.random.default_rng(seed))
    # The tips are just inside the skin, whose edge is drawn to the pixel.
    skin = cv2.dilate(hand.skin.astype(np.uint8), np.ones((3, 3), np.uint8))
    for name, point in hand.landmarks.items():
        assert at(skin, point), name


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_fingertips_are_the_ends_of_the_soft_tissue(seed: int) -> None:
    hand = draw_hand(120, True, np.random.default_rng(seed))
    height = hand.skin.shape[0]
    for tip, joint in (("middle_tip", "dip_3"), ("thumb_tip", "ip_1")):
        end, before = np.array(hand.landmarks[tip]), np.array(hand.landmarks[joint])
        beyond = end + (end - before) * 0.04 * height / np.hypot(*(end - before) * height)
        assert not at(hand.skin, tuple(beyond))


def test_the_capitate_is_cartilage_in_a_newborn_and_bone_from_its_first_year_on() -> None:
    newborn = draw(1, True)
    assert not at(newborn.bone, newborn.landmarks["capitate"])
    for age in range(12, 229, 24):
        hand = draw_hand(age, True, np.random.default_rng(age))
        assert at(hand.bone, hand.landmarks["capitate"])


def test_bone_is_brighter_than_soft_tissue_and_soft_tissue_than_air() -> None:
    hand = draw(120, True)
    bone, flesh, air = (
        hand.pixels[where].mean() for where in (hand.bone, hand.skin & ~hand.bone, ~hand.skin)
    )
    assert bone > flesh + 40
    assert flesh > air + 30


def test_it_is_a_left_hand_as_displayed_with_fingers_up_and_thumb_to_the_right() -> None:
    marks = draw(120, False).landmarks
    assert marks["middle_tip"][1] < marks["thumb_tip"][1] < marks["capitate"][1] < marks["wrist"][1]
    assert marks["mcp_5"][0] < marks["mcp_3"][0] < marks["thumb_tip"][0]


def test_landmarks_resemble_those_of_real_radiographs(shared_data: Path) -> None:
    real = pd.read_csv(shared_data / "keypoints.csv").drop(columns="id")
    hands = [draw_hand(age, True, np.random.default_rng(age)) for age in range(20, 220, 5)]
    for name in ("middle_tip", "thumb_tip", "capitate"):
        drawn = np.array([hand.landmarks[name] for hand in hands])
        for axis, values in zip("xy", drawn.T, strict=True):
            low, high = real[f"{name}_{axis}"].quantile([0.05, 0.95])
            assert low < np.median(values) < high


@pytest.mark.parametrize("degrees", [-1, 1])
def test_landmarks_follow_the_pose(degrees: int) -> None:
    upright, seed = draw(120, True), 5
    turned = draw(120, True, seed, replace(NO_NUISANCES, rotation=degrees * 8.0))
    height, width = upright.pixels.shape
    square = np.array([width, height])
    rest = {name: np.array(point) * square for name, point in upright.landmarks.items()}
    now = {name: np.array(point) * square for name, point in turned.landmarks.items()}
    angle = bearing(now["middle_tip"] - now["capitate"]) - bearing(
        rest["middle_tip"] - rest["capitate"]
    )
    assert abs(angle) > 1
    scale = np.hypot(*(now["mcp_3"] - now["capitate"])) / np.hypot(
        *(rest["mcp_3"] - rest["capitate"])
    )
    turn = cv2.getRotationMatrix2D((0, 0), -angle, scale)[:, :2]
    for name, point in rest.items():
        expected = now["capitate"] + turn @ (point - rest["capitate"])
        np.testing.assert_allclose(now[name], expected, atol=1e-6)


def bearing(arrow: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(arrow[1], arrow[0])))


def test_regions_hold_what_they_are_named_after() -> None:
    for seed in range(12):
        hand = draw_hand(20 * seed, seed % 2 == 0, np.random.default_rng(seed))
        assert inside(hand.regions["carpal"], hand.landmarks["capitate"])
        assert inside(hand.regions["wrist"], hand.landmarks["wrist"])
        for digit in range(1, 6):
            assert inside(hand.regions["metaph"], hand.landmarks[f"mcp_{digit}"])
            assert inside(hand.regions[f"mcp_{digit}"], hand.landmarks[f"mcp_{digit}"])
        assert not inside(hand.regions["metaph"], hand.landmarks["middle_tip"])


def inside(box: tuple[float, float, float, float], point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


@pytest.mark.parametrize("nuisance", ["exposure", "noise", "marker", "border"])
def test_what_the_film_adds_moves_no_landmark(nuisance: str) -> None:
    plain = draw(100, True, 4)
    other = draw(100, True, 4, replace(NO_NUISANCES, **{nuisance: 1.0}))
    assert not np.array_equal(plain.pixels, other.pixels)
    assert plain.landmarks == other.landmarks
    assert np.array_equal(plain.skin, other.skin)


def test_without_nuisances_all_hands_of_one_age_and_sex_are_the_same() -> None:
    assert np.array_equal(draw(90, True, 1).pixels, draw(90, True, 2).pixels)


def test_a_marker_never_covers_the_hand() -> None:
    marked = replace(NO_NUISANCES, marker=1.0)
    found = 0
    for seed in range(20):
        plain, tagged = draw(120, True, seed), draw(120, True, seed, marked)
        changed = plain.pixels != tagged.pixels
        found += changed.any()
        assert not (changed & plain.skin).any()
    assert found >= 15


@pytest.mark.parametrize("size", [(64, 64), (500, 200), (299, 640)])
def test_the_hand_fits_an_image_of_any_shape(size: tuple[int, int]) -> None:
    hand = draw_hand(150, True, np.random.default_rng(1), size=size)
    assert hand.pixels.shape == size
    assert hand.pixels.dtype == np.uint8
    for point in hand.landmarks.values():
        assert min(point) > 0
        assert max(point) < 1


@pytest.mark.parametrize("boneage", [-1, float("nan"), float("inf")])
def test_an_impossible_bone_age_is_refused(boneage: float) -> None:
    with pytest.raises(ValueError, match="bone age"):
        draw(boneage, True)


def test_a_thumbnail_is_refused() -> None:
    with pytest.raises(ValueError, match="64 x 64"):
        draw_hand(120, True, np.random.default_rng(0), size=(63, 100))


def test_the_data_set_is_read_back_as_any_other(demo: Path) -> None:
    manifest = read_manifest(demo)
    assert list(manifest.columns) == list(COLUMNS)
    assert manifest["split"].value_counts().to_dict() == {"train": 24, "validation": 24, "test": 24}
    assert manifest["id"].is_unique
    for path in manifest["path"]:
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        assert image.shape == (320, 256)
        assert image.dtype == np.uint8


def test_the_truth_is_written_beside_the_images(demo: Path) -> None:
    manifest = read_manifest(demo)
    landmarks = pd.read_csv(demo / "landmarks.csv")
    keypoints = [
        f"{name}_{axis}" for name in ("middle_tip", "thumb_tip", "capitate") for axis in "xy"
    ]
    assert list(landmarks.columns[:7]) == ["id", *keypoints]
    assert landmarks["id"].tolist() == manifest["id"].tolist()
    assert landmarks["split"].tolist() == manifest["split"].tolist()
    regions = pd.read_csv(demo / "regions.csv")
    assert list(regions.columns) == ["id", "label", "xmin", "ymin", "xmax", "ymax"]
    assert set(regions["id"]) == set(manifest["id"])
    labels = {"carpal", "metaph", "wrist", *(f"mcp_{digit}" for digit in range(1, 6))}
    assert all(set(rows["label"]) == labels for _, rows in regions.groupby("id"))
    assert regions[["xmin", "ymin", "xmax", "ymax"]].stack().between(0, 1).all()
    assert (regions["xmax"] > regions["xmin"]).all()
    assert (regions["ymax"] > regions["ymin"]).all()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_demo(tmp_path / name, train=4, validation=2, test=2, seed=seed)
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    assert contents(tmp_path / "first") != contents(tmp_path / "other")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_sexes_are_balanced_and_splits_resemble_each_other(demo: Path) -> None:
    manifest = read_manifest(demo)
    assert (manifest["male"].astype(float).groupby(manifest["split"]).mean() == 0.5).all()
    ages = manifest.groupby("split")["boneage"]
    assert ages.mean().between(110, 130).all()
    assert np.ptp(ages.mean()) < 8
    assert np.ptp(ages.std()) < 8
    assert ages.min().max() < 24
    assert ages.max().min() > 190
    assert manifest.loc[~manifest["male"].astype(bool), "boneage"].max() <= 216


def test_a_smaller_demo_replaces_a_larger_one_whole(tmp_path: Path) -> None:
    fetch_demo(tmp_path, train=4, validation=2, test=2)
    fetch_demo(tmp_path, train=2, validation=0, test=0, force=True)
    assert len(read_manifest(tmp_path)) == 2
    assert len(list(tmp_path.rglob("*.png"))) == 2
    assert not (tmp_path / "validation.csv").exists()


def test_another_data_set_is_never_overwritten(tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    table.write_text("id,boneage,male\n1377,180,False\n")
    with pytest.raises(BoneageError, match=r"no SOURCE\.json"):
        fetch_demo(tmp_path, train=2, validation=0, test=0, force=True)
    assert table.read_text() == "id,boneage,male\n1377,180,False\n"
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 5, 5)])
def test_impossible_counts_are_refused(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    train, validation, test = counts
    fetch_demo(tmp_path, train=1, validation=0, test=0)
    before = contents(tmp_path)
    with pytest.raises(BoneageError, match="counts of 0 or more"):
        fetch_demo(tmp_path, train=train, validation=validation, test=test, force=True)
    assert contents(tmp_path) == before
