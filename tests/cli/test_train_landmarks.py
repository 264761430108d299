"""Tests of ``boneage train-landmarks``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from boneage_cli.cli.commands import CommandGroup
from boneage_cli.cli.train_landmarks import train_landmarks

runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer(cls=CommandGroup)
    app.command("train-landmarks")(train_landmarks)
    app.command("other")(lambda: None)
    return app


def test_the_shipped_bundle_is_measured_on_a_table_of_key_points(app: typer.Typer, demo_data: Path):
    result = runner.invoke(
        app,
        [
            *("train-landmarks", "--keypoints", str(demo_data / "landmarks.csv")),
            *("--data", str(demo_data), "--evaluate", "shipped", "--device", "cpu"),
        ],
    )
    assert result.exit_code == 0, result.output
    for pose in ("upright", "180°", "mirrored"):
        assert pose in result.output


def test_radiographs_must_come_from_one_place(app: typer.Typer, demo_data: Path):
    result = runner.invoke(
        app, ["train-landmarks", "--keypoints", str(demo_data / "landmarks.csv")]
    )
    assert result.exit_code == 2
    assert "--images" in result.output


@pytest.fixture
def boxes(demo_data: Path, tmp_path: Path) -> Path:
    """A box around the capitate of each drawn hand, like manually drawn wrist boxes."""
    points = pd.read_csv(demo_data / "landmarks.csv", dtype={"id": str})
    x, y = points["capitate_x"], points["capitate_y"]
    table = pd.DataFrame({"id": points["id"], "label": "Wrist", "xmin": x - 0.05, "xmax": x + 0.05})
    table.assign(ymin=y - 0.05, ymax=y + 0.05).to_csv(tmp_path / "boxes.csv", index=False)
    return tmp_path / "boxes.csv"


def test_key_points_and_gradcam_are_measured_side_by_side(
    app: typer.Typer, demo_data: Path, demo_bundle: Path, boxes: Path
):
    words = ["train-landmarks", "--keypoints", str(demo_data / "landmarks.csv")]
    words += ["--data", str(demo_data), "--evaluate", "shipped", "--device", "cpu"]
    result = runner.invoke(app, [*words, "--boxes", str(boxes), "--gradcam", str(demo_bundle)])
    assert result.exit_code == 0, result.output
    key_points, gradcam = result.output.split("regions by Grad-CAM of")
    assert "100.0%" in key_points.split("upright")[1].splitlines()[0]
    assert all(pose in gradcam for pose in ("upright", "90°", "180°"))


def test_gradcam_is_measured_on_boxes_alone(app: typer.Typer, demo_data: Path, demo_bundle: Path):
    words = ["train-landmarks", "--keypoints", str(demo_data / "landmarks.csv")]
    words += ["--data", str(demo_data), "--evaluate", "shipped", "--gradcam", str(demo_bundle)]
    result = runner.invoke(app, words)
    assert result.exit_code == 2
    assert "--boxes" in result.output


def test_nothing_that_is_read_is_written_over(app: typer.Typer, demo_data: Path, tmp_path: Path):
    points = tmp_path / "points.csv"
    points.write_bytes((demo_data / "landmarks.csv").read_bytes())
    words = ["train-landmarks", "--keypoints", str(points), "--data", str(demo_data)]
    result = runner.invoke(app, [*words, "--output", str(points)])
    assert result.exit_code == 2
    assert "is an input as well" in result.stderr
    assert points.read_bytes() == (demo_data / "landmarks.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gradcam", "absent.safetensors"], "absent.safetensors"),
        (["--output", "points.csv/mine.safetensors"], "points.csv is a file"),
        (["--evaluate", "shipped", "--epochs", "3"], "--epochs with --evaluate"),
    ],
)
def test_mistakes_are_told_before_any_training(
    app: typer.Typer,
    demo_data: Path,
    boxes: Path,
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(boxes.parent)
    Path("points.csv").write_bytes((demo_data / "landmarks.csv").read_bytes())
    words = ["train-landmarks", "--keypoints", "points.csv", "--data", str(demo_data)]
    result = runner.invoke(app, [*words, "--boxes", str(boxes), *options])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "epoch" not in result.stdout


def test_boxes_of_other_radiographs_are_told_of(
    app: typer.Typer, demo_data: Path, demo_bundle: Path, boxes: Path
):
    table = pd.read_csv(boxes, dtype={"id": str})
    table.assign(id="other-" + table["id"]).to_csv(boxes, index=False)
    words = ["train-landmarks", "--keypoints", str(demo_data / "landmarks.csv"), "--boxes"]
    words += [str(boxes), "--data", str(demo_data), "--gradcam", str(demo_bundle)]
    result = runner.invoke(app, words)
    assert result.exit_code == 2
    assert "boxes.csv: none of its ids has an image" in result.stderr
