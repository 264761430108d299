"""Tests of training on several devices, with two processes on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment, write_experiment
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.datasets.demo import fetch_demo

COMMAND = ["-m", "boneage_cli"]
TORCHRUN = "-m torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint"
LAUNCHERS = {
    "--devices": [sys.executable, *COMMAND],
    "torchrun": [sys.executable, *TORCHRUN.split(), "localhost:0", *COMMAND],
}


def experiment(batch_size: int) -> Experiment:
    """Returns settings without batch normalisation, which would differ between processes."""
    return parse_experiment(
        {
            "name": "several",
            "preprocessing": {"height": 64, "width": 64},
            "model": {"backbone": "test_convnext", "weights": "none", "dropout": 0},
            "augmentation": {"enabled": False},
            "training": {"epochs": 2, "batch_size": batch_size, "ema": 0.5, "precision": "32"},
        },
        "several",
    )


@pytest.fixture(scope="module")
def odd_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn hands with an odd number to validate, so that two processes get unequal shares."""
    folder = tmp_path_factory.mktemp("data") / "odd"
    fetch_demo(folder, train=64, validation=15, test=2, seed=7)
    return folder


@pytest.fixture(scope="module")
def alone(odd_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(experiment(16), odd_data, runs=tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_end_where_one_ends(
    launcher: str, alone: Run, odd_data: Path, tmp_path: Path
) -> None:
    # Two batches of 8 equal one of 16: the same images in the same steps.
    write_experiment(experiment(8), tmp_path / "settings.toml")
    line = f"train -c settings.toml --data {odd_data} --devices 2 --runs runs"
    done = subprocess.run(
        [*LAUNCHERS[launcher], *line.split()],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1, "each line is printed by one process"
    assert done.stdout.count("epoch kept") == 1
    (folder,) = (tmp_path / "runs").glob("*-several")

    columns = ["train_loss", "train_mae", "val_loss", "val_mae", "val_rmse", "learning_rate"]
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "history.csv")[columns],
        pd.read_csv(alone.folder / "history.csv")[columns],
        rtol=1e-3,
    )
    columns = ["image_id", "predicted"]
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "validation" / "predictions.csv")[columns],
        pd.read_csv(alone.folder / "validation" / "predictions.csv")[columns],
        atol=0.05,
    )


def test_tasks_of_a_job_that_train_alone_have_a_run_each(odd_data: Path, tmp_path: Path) -> None:
    # As with srun, which starts the same command several times.
    write_experiment(experiment(16), tmp_path / "settings.toml")
    line = f"-m boneage_cli train -c settings.toml --data {odd_data} --devices cpu --runs runs"
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "seeds", "SLURM_NTASKS": "2"}
    for task in ("0", "1"):
        done = subprocess.run(
            [sys.executable, *line.split(), "--set", f"training.seed={task}"],
            cwd=tmp_path,
            env={**os.environ, **job, "SLURM_PROCID": task, "SLURM_LOCALID": task, "RANK": task},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "epoch kept" in done.stdout
    runs = sorted((tmp_path / "runs").glob("*-several*"))
    assert [(run / "run.json").is_file() for run in runs] == [True, True]
