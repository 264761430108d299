"""Tests of the logs of training metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import write_experiment
from boneage_cli.core.training.logs import run_name
from boneage_cli.core.training.outcome import Run

HIDDEN = "import sys; sys.modules['wandb'] = None; from boneage_cli.__main__ import main; main()"


def train_logging_to_wandb(
    start: list[str], experiment: Experiment, data: Path, folder: Path
) -> subprocess.CompletedProcess[str]:
    write_experiment(experiment, folder / "settings.toml")
    line = f"train -c settings.toml --data {data} --runs runs --wandb bones"
    return subprocess.run(
        [*start, *line.split()],
        cwd=folder,
        env={**os.environ, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )


def test_tensorboard_shows_every_figure_of_every_epoch(demo_run: Run) -> None:
    events = EventAccumulator(str(demo_run.folder))
    events.Reload()
    assert {"train_loss", "train_mae", "val_loss", "val_mae"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("val_mae")] == [1, 2]


def test_weights_and_biases_keeps_an_offline_run_in_the_run_folder(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="the extra boneage[wandb] is not installed")
    start = [sys.executable, "-m", "boneage_cli"]
    done = train_logging_to_wandb(start, tiny, demo_data, tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*-tiny/wandb/offline-run-*-tiny")
    assert next(run.glob("*.wandb")).stat().st_size > 0


def test_without_the_package_one_line_says_how_to_get_it(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    done = train_logging_to_wandb([sys.executable, "-c", HIDDEN], tiny, demo_data, tmp_path)
    assert done.returncode == 2
    assert "install it with: pip install 'boneage[wandb]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/a-rsna", "a-rsna"),
        ("runs/a-rsna/stage-1", "a-rsna-stage-1"),
        ("runs/a-rsna/fold-2/stage-1", "a-rsna-fold-2-stage-1"),
    ],
)
def test_every_training_has_a_name_of_its_own(folder: str, name: str) -> None:
    assert run_name(Path(folder)) == name
