"""Cross-validation: one model per fold, which predicts the radiographs of its held-out fold.

The radiographs of the train and validation splits are pooled and divided into folds, stratified by
sex and age; the test split is not used. The models of all folds together form an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation.ages import Evaluation, evaluate_predictions, read_prediction_table
from boneage_cli.core.evaluation.measuring import Measured, write_measured
from boneage_cli.core.evaluation.sexes import evaluate_sexes
from boneage_cli.core.intervals import COVERAGE, calibration_of, write_coverage
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.runs import (
    FOLD,
    OUT_OF_FOLD,
    PREDICTIONS,
    RESULT,
    RUN_RECORD,
    RUNS,
    SETTINGS,
    SEX_PREDICTIONS,
    VALIDATION,
    bundles_at,
    new_run_folder,
)
from boneage_cli.core.training.logs import check_loggers
from boneage_cli.core.training.run import (
    Begin,
    Report,
    silent,
    train_into,
)
from boneage_cli.core.training.run_folder import begin_folder, check_folder, read_run
from boneage_cli.core.training.run_result import RunResult
from boneage_cli.datasets.splits import Fold
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.sexes import male_of


@dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation.

    Attributes:
        folder: Holds a run folder per fold; as a model path it stands for the ensemble.
        measured: The out-of-fold metrics: each radiograph is predicted by the model that was not
            trained on it.
        folds: The result of each fold.
        result: The result of the whole.
    """

    folder: Path
    measured: Measured
    folds: list[RunResult]
    result: RunResult


def cross_validate(
    experiment: Experiment,
    data: Path,
    folds: int,
    *,
    runs: Path = RUNS,
    folder: Path | None = None,
    config_file: Path | None = None,
    resources: Resources | None = None,
    started: Callable[[Path], None] = silent,
    begin: Callable[[Fold], None] = silent,
    begin_stage: Begin = silent,
    report: Report = silent,
) -> CrossValidation:
    """Trains a model per fold; folds that are already finished in the folder are skipped.

    Args:
        experiment: The settings of all models; their seed determines the folds.
        data: The data set's folder.
        folds: The number of folds, at least 2.
        runs: The folder in which a new folder is made.
        folder: The folder of this cross-validation, instead.
        config_file: The file that the settings came from.
        resources: Devices, cache and logs.
        started: Called with the folder when it is made.
        begin: Called when a fold's training begins.
        begin_stage: Called with the settings of each stage, see ``train``.
        report: Called with the metrics of each epoch.

    Raises:
        BoneageError: The data or the settings do not allow it, or the folder holds other work.
        Interrupted: The user stopped it; the message says how to resume.
    """
    if folds < 2:
        raise BoneageError(f"--folds {folds}: a cross-validation has at least 2")
    resources = (resources or Resources()).on_one_device("--folds")
    check_loggers(resources.wandb)
    folder = new_run_folder(runs, experiment.name) if folder is None else folder
    record = RunRecord.new(data, resources, config_file=config_file, folds=folds)
    check_folder(folder, experiment, record)
    if not (folder / RUN_RECORD).exists():
        begin_folder(folder, experiment, record)
        started(folder)
    try:
        return _cross_validate(folder, record, experiment, begin, begin_stage, report)
    except BoneageError:
        # Settings or data that allow no training leave no folder that could be resumed.
        if not (folder / f"{FOLD}1").exists():
            for name in (SETTINGS, RUN_RECORD):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
        raise


def is_cross_validation(folder: Path) -> bool:
    """Whether a folder holds a cross-validation, not a single run."""
    return RunRecord.read(folder).folds is not None


def resume_cross_validation(
    folder: Path,
    *,
    begin: Callable[[Fold], None] = silent,
    begin_stage: Begin = silent,
    report: Report = silent,
) -> CrossValidation:
    """Resumes a cross-validation that was interrupted.

    Args:
        folder: Its folder.
        begin: Called when a fold's training begins.
        begin_stage: Called with the settings of each stage, see ``train``.
        report: Called with the metrics of each epoch.

    Raises:
        BoneageError: The data set or the settings are not those that it began with.
        Interrupted: The user stopped it; the message says how to resume.
    """
    record, experiment = read_run(folder)
    return _cross_validate(folder, record, experiment, begin, begin_stage, report)


def _cross_validate(
    folder: Path,
    record: RunRecord,
    experiment: Experiment,
    begin: Callable[[Fold], None],
    begin_stage: Begin,
    report: Report,
) -> CrossValidation:
    count = record.folds or 0
    results: list[RunResult] = []
    try:
        for fold in (Fold(number, count) for number in range(1, count + 1)):
            place = folder / f"{FOLD}{fold.number}"
            if not (place / RESULT).exists():
                begin(fold)
            results.append(
                train_into(
                    place,
                    experiment,
                    record.of_fold(fold),
                    begin=begin_stage,
                    report=report,
                )
            )
        measured = _out_of_fold(folder, record.data, experiment, count)
        if measured.ages is not None:
            _calibrate_bundles(folder, measured.ages, count)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted in fold {min(len(results) + 1, count)} of {count}; go on with: "
            f"boneage train --resume {folder}"
        ) from None
    result = _summary(results, measured)
    result.write(folder)
    return CrossValidation(folder, measured, results, result)


def _out_of_fold(folder: Path, data: Path, experiment: Experiment, count: int) -> Measured:
    about = {
        "model": [str(folder)],
        "data": str(data),
        "split": f"{count} folds, out of fold",
        "epoch_kept": experiment.training.keep,
    }
    ages = sexes = None
    if tables := _of_all_folds(folder, PREDICTIONS, count):
        found = pd.concat(tables, ignore_index=True)
        known = _known(found, found["true"])
        ages = evaluate_predictions(known, found["predicted"].to_numpy(float), about=about)
    if of_sexes := _of_all_folds(folder, SEX_PREDICTIONS, count):
        found = pd.concat(of_sexes, ignore_index=True)
        known = _known(found, found["boneage"])
        sexes = evaluate_sexes(known, found["male_probability"].to_numpy(float), about=about)
    measured = Measured(ages, sexes)
    write_measured(measured, folder / OUT_OF_FOLD, f"{folder.name}, out of fold")
    if ages is not None:
        parts = np.repeat(np.arange(count), [len(table) for table in tables])
        write_coverage(ages.predictions, folder / OUT_OF_FOLD / COVERAGE, parts)
    return measured


def _of_all_folds(folder: Path, name: str, count: int) -> list[pd.DataFrame]:
    """Reads a validation table of every fold; empty if the models do not write that table."""
    files = [folder / f"{FOLD}{number}" / VALIDATION / name for number in range(1, count + 1)]
    return [read_prediction_table(file) for file in files] if files[0].exists() else []


def _known(found: pd.DataFrame, ages: pd.Series) -> pd.DataFrame:
    """Returns the labels in a table of predictions as a manifest."""
    male = found["sex"].map(male_of).astype("boolean")
    return pd.DataFrame({"id": found["image_id"], "boneage": ages, "male": male})


def _calibrate_bundles(folder: Path, evaluation: Evaluation, count: int) -> None:
    # Intervals from the errors of all folds are more precise than those of a model's own fold.
    calibration = calibration_of(evaluation.predictions, f", out of fold, {count} folds")
    for path in bundles_at(folder) if calibration else ():
        save_bundle(replace(load_bundle(path), calibration=calibration), path)


def _summary(results: list[RunResult], measured: Measured) -> RunResult:
    return results[-1].model_copy(
        update={
            # Per model; folds differ by a few radiographs.
            "train_images": max(result.train_images for result in results),
            "validation_images": sum(result.validation_images for result in results),
            **measured.to_result(),
            "epochs": max(result.epochs for result in results),
            "best_epoch": None,
            "seconds": round(sum(result.seconds for result in results), 1),
            "folds": len(results),
        }
    )
