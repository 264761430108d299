"""Tests of the shipped key-point network and of training another one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from boneage_cli.core.landmark_training.augmentation import show
from boneage_cli.core.landmark_training.evaluation import (
    POSES,
    inside,
    measure,
    measure_key_points,
    measure_regions,
    pose_radiograph,
)
from boneage_cli.core.landmark_training.examples import (
    LandmarkExample,
    drawn_examples,
    read_examples,
)
from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
from boneage_cli.core.landmark_training.training import train_landmarks
from boneage_cli.core.landmarks import (
    SHIPPED,
    LandmarkLocator,
    load_landmark_bundle,
    save_landmark_bundle,
)
from boneage_cli.core.regions.locators import KeyPointRegions
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # More threads do not speed up such small batches, and slow them down on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def locator() -> LandmarkLocator:
    return LandmarkLocator.load(device="cpu")


@pytest.fixture(scope="module")
def drawings() -> list[LandmarkExample]:
    return drawn_examples(5, seed=2024)


@pytest.fixture(scope="module")
def radiographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Real radiographs with boxes that are not in the shipped bundle's training data."""
    boxes = pd.read_csv(shared_data / "ossification-boxes.csv", dtype={"id": str})
    chosen = sorted(boxes["id"].unique())[::20]
    folder = tmp_path_factory.mktemp("radiographs")
    for name in ("a", "b"):
        with zipfile.ZipFile(shared_data / f"rsna-train-299-{name}.zip") as archive:
            for member in archive.namelist():
                if Path(member).stem in chosen:
                    (folder / Path(member).name).write_bytes(archive.read(member))
    return [
        example
        for example in read_examples(
            shared_data / "keypoints.csv",
            images=folder,
            native_size=shared_data / "native-size.csv",
            boxes=shared_data / "ossification-boxes.csv",
        )
        if example.boxes is not None
    ]


@pytest.mark.parametrize("pose", POSES)
def test_the_shipped_network_finds_drawn_hands_in_any_pose(
    pose: str, locator: LandmarkLocator, drawings: list[LandmarkExample]
):
    images = [example.radiograph for example in drawings]
    truth = [example.landmarks for example in drawings if example.landmarks]
    result = measure_key_points(locator, images, truth, pose)
    assert result.fallbacks == 0
    assert np.median(result.errors) < 0.03
    assert result.errors.max() < 0.12


@pytest.mark.parametrize("pose", ["upright", "90°", "180°"])
def test_wrists_and_knuckles_of_real_radiographs_lie_in_their_regions(
    pose: str, locator: LandmarkLocator, radiographs: list[LandmarkExample]
):
    boxes = [example.boxes for example in radiographs if example.boxes is not None]
    posed = [pose_radiograph(example.radiograph, pose) for example in radiographs]
    shares = measure_regions(KeyPointRegions(locator).locate(posed), boxes, pose)
    for name in ("wrist_in_carpal", "mcp_in_metaph"):
        assert shares[f"{name}_boxes"] > 0
        assert shares[name] >= (0.98 if pose == "upright" else 0.95)


def test_a_picture_without_a_hand_is_flagged_and_gets_the_average_pose(locator: LandmarkLocator):
    noise = np.random.default_rng(0).integers(0, 256, (300, 240), np.uint8)
    pictures = [Radiograph(np.zeros((300, 240), np.uint8)), Radiograph(noise)]
    for located in locator.locate(pictures):
        assert located.fallback
        assert located.confidence < 0.5
        middle_tip, _, capitate = located.landmarks.array()
        assert middle_tip[1] < capitate[1]


def test_a_hand_is_found_alike_alone_and_in_a_batch(
    locator: LandmarkLocator, drawings: list[LandmarkExample]
):
    images = [example.radiograph for example in drawings[:3]]
    together = locator.locate(images)
    for image, found in zip(images, together, strict=True):
        alone = locator.locate([image])[0]
        np.testing.assert_allclose(alone.landmarks.array(), found.landmarks.array(), atol=1e-3)


def test_no_radiographs_give_no_results(locator: LandmarkLocator):
    assert locator.locate([]) == []


def test_the_shipped_bundle_is_small_and_states_where_it_came_from():
    assert SHIPPED.stat().st_size <= 6_000_000
    with safe_open(SHIPPED, framework="pt") as file:
        header = json.loads(file.metadata()["boneage"])
    assert header["provenance"]["training_radiographs"] > 1000
    upright = header["metrics"]["upright"]
    assert upright["wrist_in_carpal"] >= 0.98
    assert upright["mcp_in_metaph"] >= 0.98


def test_a_written_bundle_finds_the_same_points(
    tmp_path: Path, locator: LandmarkLocator, drawings: list[LandmarkExample]
):
    save_landmark_bundle(load_landmark_bundle(), tmp_path / "copy.safetensors")
    copy = LandmarkLocator.load(tmp_path / "copy.safetensors", device="cpu")
    image = drawings[0].radiograph
    assert copy.locate([image]) == locator.locate([image])


def test_a_file_that_is_no_key_point_bundle_is_named_and_refused(tmp_path: Path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(SHIPPED.read_bytes()[:5000])
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    for path in (damaged, other, tmp_path / "missing.safetensors"):
        with pytest.raises(BoneageError, match=path.name):
            load_landmark_bundle(path)


def test_shown_points_stay_on_the_hand_and_in_the_square(drawings: list[LandmarkExample]):
    rng = np.random.default_rng(1)
    bright = Radiograph(np.full((320, 256), 200, np.uint8))
    recipe = LandmarkRecipe()
    for example in drawings:
        assert example.landmarks is not None
        pixels, points = show(bright, example.landmarks, recipe, rng)
        assert pixels.shape == (recipe.size, recipe.size)
        assert (points > 0).all()
        assert (points < 1).all()


def test_training_writes_a_bundle_that_was_measured_on_what_it_did_not_see(tmp_path: Path):
    examples = drawn_examples(16, seed=5)
    held = [example.id for example in examples if example.held_out]
    assert 0 < len(held) < len(examples)
    recipe = LandmarkRecipe(drawings=0, epochs=1, batch_size=8, size=64)
    losses: list[float] = []
    bundle = train_landmarks(
        examples,
        recipe,
        tmp_path / "mine.safetensors",
        device="cpu",
        report=lambda epoch, loss: losses.append(loss),
    )
    assert len(losses) == 1
    assert np.isfinite(losses).all()
    assert bundle.provenance["training_radiographs"] == len(examples) - len(held)
    assert bundle.metrics["upright"]["images"] == len(held)
    reloaded = load_landmark_bundle(tmp_path / "mine.safetensors")
    assert reloaded.metrics == bundle.metrics
    assert reloaded.size == 64


def test_a_few_steps_of_training_bring_the_heat_to_the_points(drawings: list[LandmarkExample]):
    from boneage_cli.core.landmark_training.training import load_imagenet, train_landmark_network
    from boneage_cli.models.landmark_network import LandmarkNetwork

    network = LandmarkNetwork()
    load_imagenet(network)
    losses: list[float] = []
    train_landmark_network(
        network,
        [example.radiograph for example in drawings],
        [example.landmarks for example in drawings if example.landmarks],
        LandmarkRecipe(size=64, epochs=10, batch_size=5, registered=1.0),
        lambda epoch, loss, average: losses.append(loss),
    )
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_key_points_are_read_from_a_table_and_matched_by_id(demo_data: Path):
    examples = read_examples(demo_data / "landmarks.csv", data=demo_data)
    assert len(examples) == 96
    table = pd.read_csv(demo_data / "landmarks.csv").set_index("id")
    first = examples[0]
    assert first.landmarks is not None
    assert first.landmarks.capitate[0] == pytest.approx(table.loc[first.id, "capitate_x"])


@pytest.mark.parametrize("cell", ["", "inf", "left"])
def test_a_key_point_without_a_coordinate_is_told_of(cell: str, demo_data: Path, tmp_path: Path):
    table = pd.read_csv(demo_data / "landmarks.csv", dtype=str)
    table.loc[3, "thumb_tip_y"] = cell
    table.to_csv(tmp_path / "points.csv", index=False)
    wrong = rf"points\.csv: radiograph {table.loc[3, 'id']} has no number"
    with pytest.raises(BoneageError, match=wrong):
        read_examples(tmp_path / "points.csv", data=demo_data)
    table = table.drop(columns=["id"])
    table.loc[3] = ""
    table.insert(0, "id", pd.read_csv(demo_data / "landmarks.csv", dtype=str)["id"])
    table.to_csv(tmp_path / "points.csv", index=False)
    assert len(read_examples(tmp_path / "points.csv", data=demo_data)) == 95


def test_key_points_in_pixels_are_refused(demo_data: Path, tmp_path: Path):
    table = pd.read_csv(demo_data / "landmarks.csv").set_index("id")
    (table * 256).to_csv(tmp_path / "points.csv")
    with pytest.raises(BoneageError, match="give fractions of width and height, not pixels"):
        read_examples(tmp_path / "points.csv", data=demo_data)


def test_training_on_no_numbers_ends_without_a_bundle(tmp_path: Path):
    recipe = LandmarkRecipe(drawings=0, epochs=3, batch_size=4, size=64, learning_rate=1e9)
    hands = drawn_examples(16, seed=5)
    with pytest.raises(BoneageError, match=r"no longer a number in epoch .*lower --learning-rate"):
        train_landmarks(hands, recipe, tmp_path / "mine.safetensors", device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_table_without_a_needed_column_is_named_and_refused(tmp_path: Path):
    path = tmp_path / "points.csv"
    path.write_text("id,middle_tip_x\n1,0.5\n")
    with pytest.raises(BoneageError, match=r"points\.csv.*capitate_x"):
        read_examples(path, images=tmp_path)


def test_ids_without_an_image_are_reported_when_none_has_one(tmp_path: Path, demo_data: Path):
    with pytest.raises(BoneageError, match="none of its 96 ids"):
        read_examples(demo_data / "landmarks.csv", images=tmp_path)


def test_figures_are_given_for_every_pose(
    locator: LandmarkLocator, drawings: list[LandmarkExample]
):
    images = [example.radiograph for example in drawings[:2]]
    figures = measure(locator, images, [example.landmarks for example in drawings[:2]], [None] * 2)
    assert list(figures) == list(POSES)
    assert all(row["images"] == 2 for row in figures.values())


def test_points_are_told_inside_or_outside_a_turned_box():
    diamond = np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)])
    points = np.array([(0.5, 0.5), (0.05, 0.05), (0.9, 0.5), (1.2, 0.5)])
    for corners in (diamond, diamond[::-1]):
        np.testing.assert_array_equal(inside(corners, points), [True, False, True, False])
