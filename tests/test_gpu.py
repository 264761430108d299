"""Tests of predicting and training on a GPU; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from boneage_cli.core.config import Experiment
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.run_record import Resources
from boneage_cli.core.runs import SHIPPED_MODEL
from boneage_cli.core.training.run import resume, train
from boneage_cli.datasets.manifest import read_manifest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def cases(demo_data: Path) -> list[Case]:
    table = read_manifest(demo_data, "test")
    return [Case(path, bool(male)) for path, male in zip(table["path"], table["male"], strict=True)]


def months(model: Path, cases: list[Case], device: str, precision: str = "32") -> np.ndarray:
    found = Predictor.load([model], device, precision).predict_files(cases, force=True)
    return np.array([each.months for each in found])


def test_a_gpu_predicts_the_months_of_the_cpu(cases: list[Case]) -> None:
    on_cpu = months(SHIPPED_MODEL, cases, "cpu")
    assert months(SHIPPED_MODEL, cases, "cuda") == pytest.approx(on_cpu, abs=0.05)
    # In fp16, which is what auto takes.
    assert months(SHIPPED_MODEL, cases, "cuda", "auto") == pytest.approx(on_cpu, abs=0.5)


@pytest.mark.parametrize("precision", ["32", "auto"])
def test_what_a_gpu_trains_predicts_on_both(
    precision: str, tiny: Experiment, demo_data: Path, cases: list[Case], tmp_path: Path
) -> None:
    training = tiny.training.model_copy(update={"precision": precision})
    experiment = tiny.model_copy(update={"training": training})
    run = train(experiment, demo_data, runs=tmp_path, resources=Resources(devices="1"))
    assert run.evaluation is not None
    assert np.isfinite(run.evaluation.mae.value)
    on_cpu = months(run.bundle, cases, "cpu")
    assert np.ptp(on_cpu) > 1
    assert months(run.bundle, cases, "cuda") == pytest.approx(on_cpu, abs=0.05)
    assert resume(run.folder).kept_epoch == run.kept_epoch
