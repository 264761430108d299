"""Shared fixtures: demo data, a model trained on it, and real radiographs if present."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from boneage_cli.core.config import Experiment
    from boneage_cli.core.training.outcome import Run


def pytest_configure(config: pytest.Config) -> None:
    """Sets one thread per process, as the networks are tiny, and a temporary cache folder."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Worker processes inherit the folder of the parent process.
    if "BONEAGE_CACHE" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="boneage-tests-")
        os.environ["BONEAGE_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs, outside of the checkout because of RSNA's terms."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "boneage-training-dataset.csv").is_file():
        pytest.skip(
            f"no real radiographs in {folder.parent.name}/{folder.name} beside the checkout"
        )
    return folder


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of drawn hands."""
    from boneage_cli.datasets.demo import fetch_demo

    folder = tmp_path_factory.mktemp("data") / "demo"
    fetch_demo(folder, train=64, validation=16, test=16, seed=7)
    return folder


@pytest.fixture
def own_data(demo_data: Path, tmp_path: Path) -> Path:
    """A copy of the drawn hands that a test may change."""
    return shutil.copytree(demo_data, tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))


@pytest.fixture(scope="session")
def tiny() -> Experiment:
    """Settings of a network that trains in a second."""
    from boneage_cli.core.experiment_file import parse_experiment

    return parse_experiment(
        {
            "name": "tiny",
            "preprocessing": {"height": 64, "width": 56},
            "model": {
                "backbone": "small_cnn",
                "weights": "none",
                "channels": [8, 16],
                "in_channels": 1,
                "normalisation": "zscore",
                "hidden": [16],
            },
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "precision": "32"},
        },
        "tiny",
    )


@pytest.fixture(scope="session")
def demo_run(demo_data: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the tiny network on the demo data."""
    from boneage_cli.core.training.run import train

    return train(tiny, demo_data, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def demo_bundle(demo_run: Run) -> Path:
    """The model of the tiny run, which requires the sex."""
    return demo_run.bundle


@pytest.fixture
def start_training() -> Callable[..., subprocess.Popen[str]]:
    """Starts ``boneage train`` in a new process and waits for a line of its output."""

    def start(
        experiment: Experiment, data: Path, runs: Path, *options: str, until: str = "epoch   2"
    ) -> subprocess.Popen[str]:
        from boneage_cli.core.experiment_file import write_experiment

        config = runs.parent / f"{runs.name}.toml"
        write_experiment(experiment, config)
        command = [sys.executable, "-m", "boneage_cli", "train", "--config", str(config), *options]
        process = subprocess.Popen(
            [*command, "--data", str(data), "--runs", str(runs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A test suite in the background ignores SIGINT; children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout is not None
        for line in process.stdout:
            # An epoch's checkpoint is written after its line, so the first one exists after
            # the second line.
            if line.startswith(until):
                return process
        raise AssertionError(process.communicate()[1])

    return start
