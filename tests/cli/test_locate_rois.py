"""Tests of ``boneage locate-rois``."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from boneage_cli.cli.commands import CommandGroup
from boneage_cli.cli.locate_rois import locate_rois
from boneage_cli.core.bundle import Bundle, build_network, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.imaging.landmarks import LANDMARK_NAMES

runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer(cls=CommandGroup, rich_markup_mode="rich")
    app.command("locate-rois")(locate_rois)
    app.command("other")(lambda: None)
    return app


@pytest.fixture
def hands(demo_data: Path, tmp_path: Path) -> Path:
    """A folder with two drawn hands."""
    table = pd.read_csv(demo_data / "test.csv")
    (tmp_path / "hands").mkdir()
    for path in table["path"][:2]:
        shutil.copy(demo_data / path, tmp_path / "hands")
    return tmp_path / "hands"


def run(app: typer.Typer, *arguments: object):
    return runner.invoke(app, ["locate-rois", *map(str, arguments), "--device", "cpu"])


def test_a_split_of_a_data_set_is_cropped_beside_it(app: typer.Typer, demo_data: Path):
    result = run(app, "--data", demo_data, "--split", "test", "--size", 64)
    assert result.exit_code == 0, result.output
    folder = demo_data / "rois-keypoints" / "test"
    assert not (demo_data / "rois-keypoints" / "train").exists()
    manifest = pd.read_csv(demo_data / "test.csv", dtype={"id": str})
    found = pd.read_csv(folder / "rois.csv", dtype={"id": str})
    assert found["id"].tolist() == manifest["id"].tolist()
    assert found["path"].tolist() == manifest["path"].tolist()
    for region in ("carpal", "metaph"):
        assert {path.stem for path in (folder / region).iterdir()} == set(found["id"])
    truth = pd.read_csv(demo_data / "landmarks.csv", dtype={"id": str}).set_index("id")
    columns = [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"]
    errors = found.set_index("id")[columns] - truth.loc[found["id"], columns]
    assert errors.abs().median().max() < 0.03
    again = run(app, "--data", demo_data, "--split", "test", "--size", 64)
    (line,) = [line for line in again.output.splitlines() if line.startswith("│")]
    counts = [cell.strip() for cell in line.split("│")[1:-1]]
    assert counts == ["test", "16", "0", "16", str(found["fallback"].sum()), "0"]
    assert str(folder) in again.output


@pytest.mark.parametrize("place", [".", "crops"])
def test_crops_do_not_go_among_the_radiographs(app: typer.Typer, hands: Path, place: str):
    result = run(app, hands, "--output", hands / place)
    assert result.exit_code == 2
    assert "would be taken for radiographs" in " ".join(result.stderr.split())
    assert len(list(hands.iterdir())) == 2


def test_any_images_are_cropped_by_an_age_model(
    app: typer.Typer, hands: Path, tiny: Experiment, tmp_path: Path
):
    torch.manual_seed(0)
    bundle = Bundle(tiny, 120, 40, build_network(tiny, 120, 40).state_dict())
    save_bundle(bundle, tmp_path / "run" / "best.safetensors")
    result = run(
        app,
        *(hands, "--output", tmp_path / "crops", "--method", "gradcam"),
        *("--model", tmp_path / "run", "--save-heatmaps"),
    )
    assert result.exit_code == 0, result.output
    found = pd.read_csv(tmp_path / "crops" / "rois.csv")
    assert found["method"].tolist() == ["gradcam"] * 2
    assert found[["carpal_x1", "metaph_y4", "confidence", "fallback"]].notna().all(axis=None)
    assert len(list((tmp_path / "crops" / "heatmaps").iterdir())) == 2


def test_an_unreadable_image_is_named_and_the_status_is_1(
    app: typer.Typer, hands: Path, tmp_path: Path
):
    (hands / "broken.png").write_bytes(b"no image")
    result = run(app, hands, "--output", tmp_path / "crops", "--size", 64)
    assert result.exit_code == 1
    assert "broken.png" in result.stderr
    assert len(list((tmp_path / "crops" / "carpal").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{hands}"], "--output"),
        (["{hands}", "--data", "demo", "--output", "x"], "--data"),
        (["{hands}", "-o", "x", "--method", "gradcam", "--model", "gone.safetensors"], "gone"),
        (["nowhere", "-o", "x"], "nowhere"),
        (
            [
                *("{hands}", "-o", "x", "--method", "gradcam"),
                *("-m", "x", "--background", "remove"),
            ],
            "--background",
        ),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(
    app: typer.Typer, hands: Path, arguments: list[str], named: str
):
    result = run(app, *(argument.format(hands=hands) for argument in arguments))
    assert result.exit_code == 2
    assert named in result.stderr


def test_the_help_shows_its_examples_line_by_line(app: typer.Typer):
    result = runner.invoke(app, ["locate-rois", "--help"], env={"COLUMNS": "80"})
    lines = [line.strip() for line in result.output.splitlines()]
    for example in (
        "boneage locate-rois",
        "boneage locate-rois hand.png scans/ --output crops/ --size 256",
    ):
        assert example in lines


def test_a_peak_below_the_threshold_is_none(app: typer.Typer, tiny: Experiment, tmp_path: Path):
    values = tiny.model_dump(mode="json")
    values["preprocessing"] |= {"height": 96, "width": 64}
    values["model"] |= {"gender": False, "channels": [1], "hidden": [], "dropout": 0}
    experiment = parse_experiment(values, "test")
    network = build_network(experiment, 120, 40)
    # The predicted age is the brightness, so the saliency follows the bright pixels.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 4:
                weight.zero_()
                weight[0, 0, 1, 1] = 1
            elif name.endswith("weight"):
                weight.fill_(1)
    save_bundle(Bundle(experiment, 120, 40, network.state_dict()), tmp_path / "best.safetensors")
    rows, columns = np.mgrid[:288, :192]
    light = np.zeros((288, 192))
    for x, y, level in ((96, 210, 250), (90, 110, 150)):
        distance = (columns - x) ** 2 + (rows - y) ** 2
        light = np.maximum(light, level * np.exp(-distance / (2 * 16**2)))
    cv2.imwrite(str(tmp_path / "two.png"), light.astype(np.uint8))
    fallbacks = {}
    for threshold in (0.3, 0.9):
        crops = tmp_path / f"crops-{threshold}"
        result = run(
            app,
            *(tmp_path / "two.png", "--output", crops, "--method", "gradcam"),
            *("--model", tmp_path / "best.safetensors", "--heatmap-threshold", threshold),
        )
        assert result.exit_code == 0, result.output
        fallbacks[threshold] = pd.read_csv(crops / "rois.csv")["fallback"].tolist()
    assert fallbacks == {0.3: [False], 0.9: [True]}
