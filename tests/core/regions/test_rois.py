"""Tests of the crops of a radiograph's regions and of their folder."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from boneage_cli.core.bundle import Bundle, build_network, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.landmarks import FALLBACK
from boneage_cli.core.prediction.predictor import Case
from boneage_cli.core.regions.locators import CROPPED
from boneage_cli.core.regions.roi_settings import RoiSettings
from boneage_cli.core.regions.rois import locate_rois
from boneage_cli.datasets.drawn_hands import NO_NUISANCES, draw_hand
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import region_corners, render_region
from boneage_cli.locks import locked_folder

SIZE = 64
KEY_POINTS = RoiSettings(size=SIZE)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # More threads do not speed up such small batches, and slow them down on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def drawing(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return draw_hand(90 + 20 * seed, True, rng, size=(320, 256), nuisances=NO_NUISANCES).pixels


@pytest.fixture(scope="module")
def hands() -> list[np.ndarray]:
    return [drawing(seed) for seed in range(3)]


@pytest.fixture
def cases(hands: list[np.ndarray], tmp_path: Path) -> list[Case]:
    """Three drawn hands on disk."""
    return [
        Case(str(write(tmp_path / "scans" / f"hand{number}.png", pixels)))
        for number, pixels in enumerate(hands)
    ]


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return tmp_path / "crops"


@pytest.fixture
def age_model(tiny: Experiment, tmp_path: Path) -> Path:
    """An untrained model of age."""
    return save_untrained(tiny, tmp_path / "age.safetensors", seed=0)


def save_untrained(experiment: Experiment, path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network = build_network(experiment, 120, 40)
    save_bundle(Bundle(experiment, 120, 40, network.state_dict()), path)
    return path


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "rois.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def images(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted(folder.rglob("*.png"))
    }


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def points(row: dict[str, str], name: str, count: int) -> np.ndarray:
    return np.array(
        [(float(row[f"{name}_x{k}"]), float(row[f"{name}_y{k}"])) for k in range(1, count + 1)]
    )


def test_the_table_tells_where_each_crop_was_cut(cases: list[Case], crops: Path):
    result = locate_rois(cases, crops, replace(KEY_POINTS, background_removed=False))
    assert (result.made, result.kept, result.fallbacks, result.errors) == (3, 0, 0, ())
    for case in cases:
        row = rows(crops)[Path(case.path).stem]
        assert row["path"] == case.path
        assert (row["method"], row["fallback"], row["error"]) == ("keypoints", "False", "")
        assert 0.5 < float(row["confidence"]) <= 1
        landmarks = Landmarks.from_array(
            np.array([(row[f"{n}_x"], row[f"{n}_y"]) for n in LANDMARK_NAMES], float)
        )
        radiograph = Radiograph(cv2.imread(case.path, cv2.IMREAD_UNCHANGED))
        for region in CROPPED:
            expected = region_corners(landmarks, 256 / 320, region, shape=1)
            np.testing.assert_allclose(points(row, region, 4), expected, atol=1e-5)
            crop = images(crops)[f"{region}/{row['id']}.png"]
            again = render_region(radiograph, landmarks, region, SIZE, SIZE)
            assert crop.shape == (SIZE, SIZE)
            assert np.abs(crop.astype(int) - again).max() <= 2


def test_the_true_aspect_of_a_squashed_radiograph_counts(hands: list[np.ndarray], tmp_path: Path):
    squashed = cv2.resize(hands[0], (256, 256), interpolation=cv2.INTER_AREA)
    plain = Case(str(write(tmp_path / "plain.png", hands[0])))
    case = Case(str(write(tmp_path / "squashed.png", squashed)), aspect=256 / 320)
    locate_rois([plain, case], tmp_path / "crops", KEY_POINTS)
    found = images(tmp_path / "crops")
    for region in CROPPED:
        assert alike(found[f"{region}/plain.png"], found[f"{region}/squashed.png"]) > 0.95


def test_without_the_background_only_the_hand_is_left(cases: list[Case], tmp_path: Path):
    seen = {}
    for removed in (False, True):
        settings = replace(KEY_POINTS, background_removed=removed)
        locate_rois(cases[:1], tmp_path / str(removed), settings)
        seen[removed] = images(tmp_path / str(removed))["carpal/hand0.png"]
    black = (seen[True] == 0).mean()
    assert (seen[False] == 0).mean() < 0.02 < black < 0.9
    left = seen[True] > 0
    assert np.abs(seen[True][left].astype(int) - seen[False][left]).mean() < 2


def test_turned_and_mirrored_hands_give_the_crops_of_the_upright_one(
    hands: list[np.ndarray], tmp_path: Path
):
    poses = {
        "upright": hands[1],
        "turned": np.rot90(hands[1]),
        "over": np.rot90(hands[1], 2),
        "mirrored": hands[1][:, ::-1],
    }
    cases = [Case(str(write(tmp_path / f"{name}.png", hand))) for name, hand in poses.items()]
    locate_rois(cases, tmp_path / "crops", KEY_POINTS)
    found = images(tmp_path / "crops")
    for region in CROPPED:
        for pose in poses:
            assert alike(found[f"{region}/upright.png"], found[f"{region}/{pose}.png"]) > 0.9


def alike(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_a_second_call_changes_nothing(cases: list[Case], crops: Path):
    locate_rois(cases, crops, KEY_POINTS)
    before = stamps(crops)
    result = locate_rois(cases, crops, KEY_POINTS)
    assert (result.made, result.kept) == (0, 3)
    assert stamps(crops) == before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are text")
def test_a_file_name_that_is_no_text_is_as_good_as_any(cases: list[Case], crops: Path):
    odd = os.fsdecode(os.fsencode(Path(cases[0].path).parent) + b"/r\xf6ntgen.png")
    Path(cases[0].path).rename(odd)
    for made, kept in ((1, 0), (0, 1)):
        result = locate_rois([Case(odd)], crops, KEY_POINTS)
        assert (result.made, result.kept) == (made, kept)


def test_an_image_that_changed_is_cropped_again_and_no_other(cases: list[Case], crops: Path):
    locate_rois(cases, crops, KEY_POINTS)
    before = images(crops)
    write(Path(cases[1].path), drawing(7))
    result = locate_rois(cases, crops, KEY_POINTS)
    assert (result.made, result.kept) == (1, 2)
    after = images(crops)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {"carpal/hand1.png", "metaph/hand1.png"}


def test_crops_of_other_settings_are_never_taken(cases: list[Case], crops: Path):
    locate_rois(cases[:1], crops, KEY_POINTS)
    first = images(crops)
    larger = locate_rois(cases[:1], crops, replace(KEY_POINTS, size=80))
    assert larger.made == 1
    assert images(crops)["carpal/hand0.png"].shape == (80, 80)
    assert locate_rois(cases[:1], crops, KEY_POINTS).made == 1
    for name, pixels in images(crops).items():
        np.testing.assert_array_equal(pixels, first[name])


def test_crops_are_renewed_when_the_model_changes(
    cases: list[Case], crops: Path, tiny: Experiment, age_model: Path
):
    settings = RoiSettings("gradcam", SIZE, background_removed=False, model=age_model)
    assert locate_rois(cases, crops, settings).made == 3
    assert locate_rois(cases, crops, settings).kept == 3
    # Another model at the same path, as after repeating a run.
    save_untrained(tiny, age_model, seed=1)
    assert locate_rois(cases, crops, settings).made == 3
    assert {row["middle_tip_x"] for row in rows(crops).values()} == {""}
    assert points(rows(crops)["hand0"], "carpal", 4).shape == (4, 2)


def test_what_a_killed_run_left_undone_is_completed(cases: list[Case], crops: Path):
    locate_rois(cases, crops, KEY_POINTS)
    whole = images(crops)
    # As after a kill: hand1 has no row and a truncated crop, a crop of hand2 is missing, and a
    # temporary file is left.
    table = crops / "rois.csv"
    table.write_text("".join(line for line in table.open() if not line.startswith("hand1,")))
    (crops / "carpal" / "hand1.png").write_bytes(b"\x89PNG")
    (crops / "metaph" / "hand2.png").unlink()
    (crops / "metaph" / ".hand1-x1.png").write_bytes(b"")
    result = locate_rois(cases, crops, KEY_POINTS)
    assert (result.made, result.kept) == (2, 1)
    assert list(rows(crops)) == ["hand0", "hand1", "hand2"]
    completed = images(crops)
    assert completed.keys() == whole.keys()
    assert all(np.array_equal(completed[name], whole[name]) for name in whole)


def test_a_table_that_was_damaged_is_made_anew(cases: list[Case], crops: Path):
    locate_rois(cases[:1], crops, KEY_POINTS)
    table = crops / "rois.csv"
    table.write_text(table.read_text()[:-40])
    assert locate_rois(cases[:1], crops, KEY_POINTS).made == 1
    assert rows(crops)["hand0"]["key"]


def test_an_image_without_a_hand_falls_back_and_is_counted(
    cases: list[Case], crops: Path, tmp_path: Path
):
    noise = np.random.default_rng(0).integers(0, 255, (120, 100), np.uint8)
    blank = Case(str(write(tmp_path / "noise.png", noise)))
    for _ in range(2):
        result = locate_rois([cases[0], blank], crops, KEY_POINTS)
        assert result.fallbacks == 1
    assert rows(crops)["noise"]["fallback"] == "True"
    assert float(rows(crops)["noise"]["capitate_x"]) == FALLBACK.capitate[0]


def test_heat_without_a_peak_falls_back_and_is_counted(
    tmp_path: Path, crops: Path, age_model: Path
):
    black = Case(str(write(tmp_path / "black.png", np.zeros((200, 150), np.uint8))))
    settings = RoiSettings("gradcam", SIZE, False, heatmap_threshold=0.4, model=age_model)
    result = locate_rois([black], crops, settings, save_heatmaps=True)
    row = rows(crops)["black"]
    assert result.fallbacks == (row["fallback"] == "True") == 1
    assert (crops / "heatmaps" / "black.png").is_file()


def test_an_unreadable_image_is_an_error_row_and_the_others_are_cropped(
    cases: list[Case], crops: Path, hands: list[np.ndarray]
):
    locate_rois(cases, crops, KEY_POINTS)
    broken = Path(cases[1].path)
    broken.write_bytes(b"no image")
    missing = Case(str(broken.with_name("missing.png")))
    for _ in range(2):
        result = locate_rois([*cases, missing], crops, KEY_POINTS)
        assert result.kept == 2
        assert sorted("missing" in error for error in result.errors) == [False, True]
        assert "hand1.png" in rows(crops)["hand1"]["error"]
        assert rows(crops)["hand1"]["carpal_x1"] == ""
        assert not (crops / "carpal" / "hand1.png").exists()
    write(broken, hands[1])
    assert locate_rois(cases, crops, KEY_POINTS).errors == ()


def test_crops_of_images_no_longer_named_go(cases: list[Case], crops: Path):
    locate_rois(cases, crops, KEY_POINTS)
    locate_rois(cases[:2], crops, KEY_POINTS)
    assert {Path(name).stem for name in images(crops)} == set(rows(crops)) == {"hand0", "hand1"}


def test_two_images_of_one_name_get_crops_of_their_own(hands: list[np.ndarray], tmp_path: Path):
    cases = [
        Case(str(write(tmp_path / child / "hand.png", pixels)))
        for child, pixels in zip("ab", hands, strict=False)
    ]
    locate_rois(cases, tmp_path / "crops", KEY_POINTS)
    found = rows(tmp_path / "crops")
    assert {name: row["path"] for name, row in found.items()} == {
        "hand": cases[0].path,
        "hand-2": cases[1].path,
    }


def test_pictures_are_made_later_on_request(cases: list[Case], crops: Path):
    locate_rois(cases[:1], crops, KEY_POINTS)
    assert not (crops / "heatmaps").exists()
    locate_rois(cases[:1], crops, KEY_POINTS, save_heatmaps=True)
    assert images(crops)["heatmaps/hand0.png"].shape == (512, 410, 3)


def test_crops_of_another_program_are_left_alone(cases: list[Case], crops: Path):
    foreign = write(crops / "carpal" / "1377.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(BoneageError, match="--output"):
        locate_rois(cases, crops, KEY_POINTS)
    assert foreign.is_file()


def test_crops_that_another_call_is_making_are_left_to_it(cases: list[Case], crops: Path):
    locate_rois(cases, crops, KEY_POINTS)
    before = stamps(crops)
    with locked_folder(crops), pytest.raises(BoneageError, match="is writing it"):
        locate_rois(cases[:1], crops, KEY_POINTS)
    assert stamps(crops) == before


def test_a_folder_that_cannot_be_written_is_named_and_the_work_goes_on_later(
    cases: list[Case], crops: Path
):
    locate_rois(cases, crops, KEY_POINTS)
    (crops / "metaph" / "hand2.png").unlink()
    (crops / "metaph" / "hand2.png").mkdir()
    larger = replace(KEY_POINTS, size=80)
    with pytest.raises(BoneageError, match="crops: cannot be written"):
        locate_rois(cases, crops, larger, workers=1, batch_size=1)
    (crops / "metaph" / "hand2.png").rmdir()
    locate_rois(cases, crops, larger)
    assert {pixels.shape for pixels in images(crops).values()} == {(80, 80)}


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path):
    with pytest.raises(BoneageError, match="--background"):
        RoiSettings("gradcam", background_removed=True, model=tmp_path)
    with pytest.raises(BoneageError, match="--model"):
        RoiSettings("gradcam", background_removed=False)
    with pytest.raises(BoneageError, match="gone"):
        locate_rois([], tmp_path / "crops", replace(KEY_POINTS, model=tmp_path / "gone"))


@pytest.mark.parametrize("background_removed", [True, False])
def test_a_negative_gives_the_crops_of_the_radiograph(
    background_removed: bool, hands: list[np.ndarray], tmp_path: Path
):
    cases = [
        Case(str(write(tmp_path / "plain.png", hands[1]))),
        Case(str(write(tmp_path / "negative.png", 255 - hands[1]))),
    ]
    settings = replace(KEY_POINTS, background_removed=background_removed)
    locate_rois(cases, tmp_path / "crops", settings)
    found = images(tmp_path / "crops")
    for region in CROPPED:
        assert alike(found[f"{region}/plain.png"], found[f"{region}/negative.png"]) > 0.9


def test_a_crop_at_a_peak_of_heat_is_what_lies_between_its_corners(
    cases: list[Case], crops: Path, hands: list[np.ndarray], age_model: Path
):
    settings = RoiSettings("gradcam", SIZE, background_removed=False, model=age_model)
    locate_rois(cases, crops, settings)
    for number, hand in enumerate(hands):
        height, width = hand.shape
        for region in CROPPED:
            corners = points(rows(crops)[f"hand{number}"], region, 4)
            # The second corner is to the right of the first one, the fourth is below it.
            assert corners[1, 0] > corners[0, 0]
            assert corners[3, 1] > corners[0, 1]
            (left, top), (right, bottom) = corners[0], corners[2]
            steps = (np.arange(SIZE) + 0.5) / SIZE
            x = (left + steps * (right - left)) * width - 0.5
            y = (top + steps * (bottom - top)) * height - 0.5
            columns, lines = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
            expected = cv2.remap(hand, columns, lines, cv2.INTER_LINEAR)
            crop = images(crops)[f"{region}/hand{number}.png"]
            assert alike(crop, expected) > 0.95
            assert alike(crop.T, expected) < 0.9


def test_a_proportion_that_is_corrected_makes_the_crops_anew(cases: list[Case], crops: Path):
    for aspect, made in ((0.8, 1), (1.2, 1), (1.2, 0)):
        result = locate_rois([replace(cases[0], aspect=aspect)], crops, KEY_POINTS)
        assert (result.made, result.kept) == (made, 1 - made)


def test_pictures_of_other_settings_do_not_stay(cases: list[Case], crops: Path):
    locate_rois(cases[:2], crops, KEY_POINTS, save_heatmaps=True)
    assert len(list((crops / "heatmaps").iterdir())) == 2
    assert locate_rois(cases[:2], crops, replace(KEY_POINTS, size=80)).made == 2
    assert not [name for name in images(crops) if name.startswith("heatmaps")]
