"""Tests of the published systems' settings files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.cached_views import view_pixels
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.datasets.demo import fetch_demo
from boneage_cli.datasets.manifest import read_manifest

CONFIGS = Path(__file__).parents[2] / "configs"

# Numbers of trainable weights of the published code, or of this package's design if it differs
# on purpose (see tests/models/test_systems.py).
WEIGHTS = {
    "s1-global": 295_729,
    "s1-roi": 139_281,
    "s1-fusion": 522_417,
    "s2-baseline": 21_831_953,
    "s2-sex": 23_972_201,
    "s2-attention": 22_665_770,
    "s2-improved-attention": 25_475_962,
    "s3-convnext-gem": 28_264_834,
    "s4-m46-age": 24_751_201,
    "s4-m46-sex": 24_751_201,
}
AGE_SYSTEMS = [name for name in WEIGHTS if name != "s4-m46-sex"]


def small(name: str) -> Experiment:
    """Loads a system's settings, changed to one epoch of small images from random weights."""
    # m46 halves its input six times, so it needs larger images.
    side = 128 if "m46" in name else 64
    return load_experiment(
        CONFIGS / f"{name}.toml",
        overrides=[
            f"preprocessing.height={side}",
            f"preprocessing.width={side}",
            "regions.height=64",
            "regions.width=64",
            "model.weights=none",
            "training.epochs=1",
            "training.frozen_epochs=0",
            "training.warmup_epochs=0",
            "training.batch_size=16",
            'training.precision="32"',
        ],
    )


@pytest.fixture(scope="module")
def few_drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "few"
    fetch_demo(folder, train=12, validation=6, test=2, seed=3)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """Folder of the runs, deleted afterwards: a checkpoint of 25 million weights has 300 MB."""
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.fixture(scope="module")
def sex_run(few_drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("runs")
    yield train(small("s4-m46-sex"), few_drawings, runs=folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_every_published_system_has_a_settings_file_named_as_it_names_itself() -> None:
    files = {path.stem for path in CONFIGS.glob("s[1-4]-*.toml")}
    assert files == set(WEIGHTS)
    for name in files:
        assert load_experiment(CONFIGS / f"{name}.toml").name == name


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_first_lines_say_what_a_file_reproduces_and_where_it_differs(name: str) -> None:
    lines = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name[:2].upper()} (")
    assert lines[1].startswith("# Where it differs on purpose:")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_settings_file_builds_the_network_with_its_number_of_weights(name: str) -> None:
    experiment = load_experiment(CONFIGS / f"{name}.toml")
    # On the meta device, m46's layers of 2048 × 2048 need no memory.
    with torch.device("meta" if experiment.model.backbone == "m46" else "cpu"):
        network = build_network(experiment, age_mean=127.3, age_std=41.2)
    assert sum(weight.numel() for weight in network.parameters()) == WEIGHTS[name]


@pytest.mark.parametrize("name", AGE_SYSTEMS)
def test_a_system_trains_and_its_bundle_reloads_to_the_same_predictions(
    name: str, few_drawings: Path, runs: Path
) -> None:
    run = train(small(name), few_drawings, runs=runs)
    history = pd.read_csv(run.folder / "history.csv")
    assert np.isfinite(history.to_numpy()).all()
    in_training = pd.read_csv(run.folder / "validation" / "predictions.csv")
    manifest = read_manifest(few_drawings, "validation")
    assert in_training["image_id"].astype(str).tolist() == manifest["id"].astype(str).tolist()
    predictor = Predictor.load([run.bundle], precision="32")
    cases = [Case(row.path, male=row.male) for row in manifest.itertuples()]
    predicted = [prediction.months for prediction in predictor.predict_files(cases, batch_size=4)]
    assert np.isfinite(predicted).all()
    assert np.abs(in_training["predicted"] - predicted).max() < 1e-3


@torch.inference_mode()
def test_the_model_of_sex_trains_and_its_bundle_reloads_to_the_same_figures(
    sex_run: Run, few_drawings: Path
) -> None:
    bundle = load_bundle(sex_run.bundle)
    manifest = read_manifest(few_drawings, "validation")
    views = view_pixels(
        manifest, ViewRenderer(view_settings(bundle.experiment)), few_drawings / ".cache"
    )
    pixels = {name: torch.from_numpy(np.array(view))[:, None] for name, view in views.items()}
    male = torch.tensor(manifest["male"].to_numpy(float), dtype=torch.float32)
    logit = bundle.network()(pixels)["sex"]
    (epoch,) = pd.read_csv(sex_run.folder / "history.csv").to_dict("records")
    loss = float(binary_cross_entropy_with_logits(logit, male))
    assert epoch["val_loss"] == pytest.approx(loss, abs=1e-4)
    assert epoch["val_sex_error"] == pytest.approx(
        float(((logit > 0) != (male > 0.5)).float().mean())
    )
    assert "val_mae" not in epoch


def test_the_model_of_sex_gives_the_probabilities_that_it_was_measured_by(
    sex_run: Run, few_drawings: Path
) -> None:
    measured = pd.read_csv(sex_run.folder / "validation" / "sex_predictions.csv")
    manifest = read_manifest(few_drawings, "validation")
    predictor = Predictor.load([sex_run.bundle], precision="32")
    found = predictor.predict_files([Case(path) for path in manifest["path"]], batch_size=4)
    assert [each.male_probability for each in found] == pytest.approx(
        measured["male_probability"].tolist(), abs=1e-3
    )
