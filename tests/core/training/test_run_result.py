"""Tests of a run's result.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boneage_cli.core.evaluation.metrics import Estimate
from boneage_cli.core.training.run_result import RunResult, figure_name
from boneage_cli.errors import BoneageError

OF_AGES = RunResult(
    name="tiny",
    date="2026-01-31",
    backbone="small_cnn",
    train_images=64,
    validation_images=16,
    validation_mae=Estimate(4.16, 3.7, 4.65),
    baseline_mae=30.5,
    epochs=2,
    best_epoch=1,
    parameters=1000,
    seconds=12.3,
    hardware="cpu",
    command="boneage train",
)
OF_SEXES = OF_AGES.model_copy(
    update={
        "validation_mae": None,
        "baseline_mae": None,
        "validation_sex_accuracy": Estimate(0.931, 0.91, 0.95),
        "baseline_sex_accuracy": 0.55,
    }
)


@pytest.mark.parametrize("result", [OF_AGES, OF_SEXES, OF_AGES.model_copy(update={"folds": 5})])
def test_a_result_is_read_as_it_was_written(result: RunResult, tmp_path: Path) -> None:
    result.write(tmp_path)
    assert RunResult.read(tmp_path) == result
    written = json.loads((tmp_path / "result.json").read_text())
    # The result of a single run has no folds.
    assert ("folds" in written) == (result.folds is not None)
    assert list(written)[:5] == ["name", "date", "backbone", "train_images", "validation_images"]


def test_a_model_is_judged_by_its_ages_where_it_has_any() -> None:
    assert OF_AGES.figure == "4.16 (3.70 to 4.65)"
    assert OF_SEXES.figure == "93.1% (91.0 to 95.0)"
    assert figure_name([]) == figure_name([OF_AGES]) == "MAE, months (95 %)"
    assert figure_name([OF_SEXES]) == "sexes right (95 %)"
    assert figure_name([OF_SEXES, OF_AGES]) == "MAE, months, or sexes right (95 %)"


def test_a_damaged_result_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"name": "tiny"}))
    with pytest.raises(BoneageError, match=r"result\.json: cannot be read \(date: Field required"):
        RunResult.read(tmp_path)
