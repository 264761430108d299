"""Promises about ``boneage train-landmarks``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from boneage_cli.cli.console import CommandGroup
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
