"""Finishes a training: metrics, plots, prediction intervals and out-of-distribution limits."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd

from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation.ages import Evaluation, evaluate_predictions
from boneage_cli.core.evaluation.measuring import Measured, write_measured
from boneage_cli.core.evaluation.sexes import SexEvaluation, evaluate_sexes
from boneage_cli.core.hardware import describe_hardware
from boneage_cli.core.intervals import COVERAGE, calibration_of, write_coverage
from boneage_cli.core.likeness import Likeness, fit_likeness
from boneage_cli.core.plots.training import learning_curve
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.run_record import RunRecord
from boneage_cli.core.runs import BUNDLE, RESULT, STAGE, VALIDATION
from boneage_cli.core.summary import add_to_summary
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.recorder import RunRecorder
from boneage_cli.core.training.run_result import RunResult
from boneage_cli.core.training.trainer import device_of

# Number of training radiographs to whose features the out-of-distribution detection is fitted.
LIKENESS_IMAGES = 4000
_PATHS = ("model", "data")


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        bundle: The model, from the epoch that training.keep selects.
        measured: Its metrics on the validation split; None in all processes but the first.
        epochs: Epochs trained.
        kept_epoch: The epoch that the bundle holds, from 1.
        parameters: Number of the network's weights.
        seconds: Training time, including earlier stages, before and after interruptions.
    """

    folder: Path
    bundle: Path
    measured: Measured | None
    epochs: int
    kept_epoch: int
    parameters: int
    seconds: float

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of its ages; None if it predicts none."""
        return self.measured.ages if self.measured else None

    @property
    def sexes(self) -> SexEvaluation | None:
        """The evaluation of its sexes; None if it predicts none."""
        return self.measured.sexes if self.measured else None


def finish(
    folder: Path,
    record: RunRecord,
    datamodule: BoneAgeData,
    module: BoneAgeModule,
    recorder: RunRecorder,
    trainer: pl.Trainer,
) -> Run:
    """Evaluates a trained model; if the run is not finished yet, completes its bundle and files.

    Files of a finished run stay unchanged, because a fold's bundle has intervals of all folds.

    Args:
        folder: The run folder.
        record: The record of how the run began.
        datamodule: Its radiographs.
        module: The network after the last epoch.
        recorder: The history of epochs, and which was kept.
        trainer: The trainer; only its first process evaluates and writes.
    """
    experiment, device = module.experiment, device_of(record.devices)
    history = pd.DataFrame(recorder.history)
    bundle = folder / BUNDLE
    run = Run(
        folder=folder,
        bundle=bundle,
        measured=_measure(folder, datamodule, device) if trainer.is_global_zero else None,
        epochs=len(history),
        kept_epoch=recorder.kept_epoch,
        parameters=sum(p.numel() for p in module.network.parameters()),
        seconds=float(history["seconds"].sum()) + _seconds_of_stages(folder),
    )
    if run.measured is not None and not (folder / RESULT).exists():
        learning_curve(history, folder / "learning_curve.png")
        write_measured(run.measured, folder / VALIDATION, f"{folder.name}, validation")
        if run.evaluation is not None:
            write_coverage(run.evaluation.predictions, folder / VALIDATION / COVERAGE)
        trained = load_bundle(bundle)
        save_bundle(
            replace(
                trained,
                metrics=trained.metrics | _metrics(run),
                calibration=calibration_of(run.evaluation.predictions, " of the validation split")
                if run.evaluation
                else None,
                likeness=learn_likeness(bundle, datamodule, experiment, device),
            ),
            bundle,
        )
        kept = history.iloc[run.kept_epoch - 1]
        add_to_summary(folder.parent, _summary_row(run, record, experiment, kept), experiment)
        # This file marks the run as finished.
        _result(run, experiment, datamodule, device).write(folder)
    return run


def _metrics(run: Run) -> dict[str, Any]:
    """Returns the validation metrics that the bundle stores.

    Without the paths of model and data, since bundles are passed on to others.
    """
    of_targets = {"validation": run.evaluation, "validation_sexes": run.sexes}
    return {
        name: {key: value for key, value in metrics.to_dict().items() if key not in _PATHS}
        for name, metrics in of_targets.items()
        if metrics is not None
    }


def _summary_row(
    run: Run, record: RunRecord, experiment: Experiment, kept: pd.Series
) -> dict[str, Any]:
    ages, sexes = run.evaluation, run.sexes
    return {
        "model_name": experiment.model.family + ("+sex" if experiment.model.gender else ""),
        "num_params": run.parameters,
        "total_training_time_s": round(run.seconds, 1),
        "train_mae": kept.get("train_mae"),
        "train_rmse": kept.get("train_rmse"),
        "val_mae": ages.mae.value if ages else None,
        "val_rmse": ages.rmse if ages else None,
        "val_sex_accuracy": sexes.accuracy.value if sexes else None,
        "stopped_epoch": run.epochs,
        "best_epoch": run.kept_epoch,
        "config_file": str(record.config_file) if record.config_file else None,
        "save_dir": str(run.folder),
        "data": str(record.data),
    }


def _seconds_of_stages(folder: Path) -> float:
    stages = folder.glob(f"{STAGE}*/{RESULT}")
    return sum(RunResult.read(stage.parent).seconds for stage in stages)


def _result(run: Run, experiment: Experiment, datamodule: BoneAgeData, device: str) -> RunResult:
    return RunResult(
        name=experiment.name,
        date=f"{datetime.now():%Y-%m-%d}",
        backbone=experiment.model.backbone,
        train_images=len(datamodule.train_manifest),
        validation_images=len(datamodule.validation_manifest),
        **(run.measured.to_result() if run.measured else {}),
        epochs=run.epochs,
        best_epoch=run.kept_epoch,
        parameters=run.parameters,
        seconds=round(run.seconds, 1),
        hardware=describe_hardware(device),
        command=shlex.join(sys.argv),
    )


def _measure(folder: Path, datamodule: BoneAgeData, device: str) -> Measured:
    # Evaluated again through the same code as predict, not taken from the log.
    predictor = Predictor.load([folder / BUNDLE], device)
    manifest, trained = datamodule.validation_manifest, datamodule.train_manifest
    batches = datamodule.batches["validation"]
    answers = predictor.predict_pixels(batches.pixels, batches.male.cpu().numpy())
    about = {
        "model": [str(folder / BUNDLE)],
        "data": str(datamodule.folder),
        "split": "validation",
    }
    ages = sexes = None
    if predictor.predicts_age:
        mean = float(trained["boneage"].mean())
        ages = evaluate_predictions(manifest, answers.months, baseline=mean, about=about)
    if predictor.predicts_sex:
        sexes = evaluate_sexes(
            manifest,
            answers.male_probability,
            boys_in_training=float(trained["male"].mean()),
            about=about,
        )
    return Measured(ages, sexes)


def learn_likeness(
    path: Path, datamodule: BoneAgeData, experiment: Experiment, device: str = "auto"
) -> Likeness:
    """Fits the out-of-distribution detection to features of training and held-out radiographs.

    Args:
        path: The bundle.
        datamodule: The radiographs of its training, after ``setup``.
        experiment: Its settings.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    predictor = Predictor.load([path], device)
    train, validation = (datamodule.batches[split] for split in ("train", "validation"))
    chance = np.random.default_rng(experiment.training.seed)
    some = np.sort(chance.permutation(len(train))[:LIKENESS_IMAGES])
    return fit_likeness(
        predictor.features(train.pixels, some),
        predictor.features(validation.pixels, np.arange(len(validation))),
        f"{len(some)} training and {len(validation)} validation radiographs",
    )
