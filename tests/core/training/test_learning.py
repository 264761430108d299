"""Tests that a network learns from the bones and the sex, and from nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.datasets.demo import fetch_demo


def experiment(*, gender: bool) -> Experiment:
    return parse_experiment(
        {
            "name": "learning",
            "preprocessing": {"height": 72, "width": 64},
            "model": {
                "gender": gender,
                "backbone": "small_cnn",
                "weights": "none",
                "channels": [16, 32, 64],
                "in_channels": 1,
                "normalisation": "zscore",
                "hidden": [64],
                "dropout": 0,
            },
            "augmentation": {"enabled": False},
            "training": {
                "epochs": 16,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "ema": 0.95,
                "precision": "32",
            },
        },
        "learning",
    )


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "hands"
    fetch_demo(folder, train=240, validation=80, test=2, seed=11)
    return folder


@pytest.fixture(scope="module")
def with_sex(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(experiment(gender=True), hands, runs=tmp_path_factory.mktemp("runs"))


def test_sex_helps(with_sex: Run, hands: Path, tmp_path: Path) -> None:
    without = train(experiment(gender=False), hands, runs=tmp_path)
    # At the same bone age in months, a girl's hand is more mature than a boy's.
    assert with_sex.evaluation.mae.value < without.evaluation.mae.value - 1


def test_shuffled_labels_do_not_train(with_sex: Run, hands: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "hands"
    shutil.copytree(hands, shuffled)
    table = pd.read_csv(shuffled / "train.csv", dtype={"id": str})
    order = np.random.default_rng(0).permutation(len(table))
    table["boneage"] = table["boneage"].to_numpy()[order]
    table.to_csv(shuffled / "train.csv", index=False)

    run = train(experiment(gender=True), shuffled, runs=tmp_path / "runs")
    baseline = with_sex.evaluation.baseline_mae
    assert with_sex.evaluation.mae.value < baseline / 2
    assert run.evaluation.mae.value > 0.9 * baseline
