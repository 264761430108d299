"""What comes of a training: figures, plots, intervals, and what its model refuses."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd

from boneage_cli.core import plots
from boneage_cli.core.acceptance import Likeness, fit_likeness
from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.datamodule import BoneAgeData
from boneage_cli.core.evaluation import Evaluation, evaluate_predictions, write_evaluation
from boneage_cli.core.hardware import describe_hardware
from boneage_cli.core.intervals import COVERAGE, LEAST, Calibration, calibrate, write_coverage
from boneage_cli.core.module import BoneAgeModule
from boneage_cli.core.prediction import Predictor
from boneage_cli.core.recorder import RunRecorder
from boneage_cli.core.runs import BUNDLE, RESULT, STAGE, add_to_summary, read_json, write_json
from boneage_cli.core.trainer import device_of

# Training radiographs whose features are learnt, for the refusal of images that are unlike them.
LIKENESS_IMAGES = 4000


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        bundle: The best epoch's model.
        evaluation: Its figures on the validation split.
        epochs: Epochs trained.
        best_epoch: The epoch that the bundle holds, from 1.
        parameters: Number of the network's weights.
        seconds: Time of training, that of earlier stages included, before and after interruptions.
    """

    folder: Path
    bundle: Path
    evaluation: Evaluation | None
    epochs: int
    best_epoch: int
    parameters: int
    seconds: float


def finish(
    folder: Path,
    record: Mapping[str, Any],
    datamodule: BoneAgeData,
    module: BoneAgeModule,
    recorder: RunRecorder,
    trainer: pl.Trainer,
) -> Run:
    """Measures a trained model, completes its bundle, and writes what came of the run.

    Args:
        folder: The run folder.
        record: What its ``run.json`` says.
        datamodule: Its radiographs.
        module: The network, as it is after the last epoch.
        recorder: The epochs, and which was best.
        trainer: Of several processes the first alone writes.
    """
    experiment, device = module.experiment, device_of(record["devices"])
    history = pd.DataFrame(recorder.history)
    evaluation = None
    if trainer.is_global_zero:
        plots.learning_curve(history, folder / "learning_curve.png")
        if "age" in experiment.model.targets:
            evaluation = _evaluate(folder, datamodule, device)
            write_evaluation(evaluation, folder / "validation", f"{folder.name}, validation")
            write_coverage(evaluation.predictions, folder / "validation" / COVERAGE)
            bundle = load_bundle(folder / BUNDLE)
            metrics = bundle.metrics | {"validation": evaluation.to_dict()}
            save_bundle(
                replace(
                    bundle,
                    metrics=metrics,
                    calibration=calibration_of(evaluation),
                    likeness=learn_likeness(folder / BUNDLE, datamodule, experiment, device),
                ),
                folder / BUNDLE,
            )
    run = Run(
        folder=folder,
        bundle=folder / BUNDLE,
        evaluation=evaluation,
        epochs=len(history),
        best_epoch=recorder.best_epoch,
        parameters=sum(p.numel() for p in module.network.parameters()),
        seconds=float(history["seconds"].sum()) + _seconds_of_stages(folder),
    )
    if trainer.is_global_zero:
        best = history.iloc[recorder.best_epoch - 1]
        write_json(_result(run, experiment, datamodule, best, device), folder / RESULT)
        add_to_summary(
            folder.parent,
            {
                "model_name": experiment.model.family + ("+sex" if experiment.model.gender else ""),
                "num_params": run.parameters,
                "total_training_time_s": round(run.seconds, 1),
                "train_mae": best.get("train_mae"),
                "train_rmse": best.get("train_rmse"),
                "val_mae": evaluation.mae.value if evaluation else None,
                "val_rmse": evaluation.rmse if evaluation else None,
                "stopped_epoch": run.epochs,
                "best_epoch": run.best_epoch,
                "config_file": record["config_file"],
                "save_dir": str(folder),
            },
            experiment,
        )
    return run


def _seconds_of_stages(folder: Path) -> float:
    return sum(read_json(stage)["seconds"] for stage in folder.glob(f"{STAGE}*/{RESULT}"))


def _result(
    run: Run, experiment: Experiment, datamodule: BoneAgeData, best: pd.Series, device: str
) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "date": f"{datetime.now():%Y-%m-%d}",
        "backbone": experiment.model.backbone,
        "train_images": len(datamodule.train_manifest),
        "validation_images": len(datamodule.validation_manifest),
        "validation_mae": asdict(run.evaluation.mae) if run.evaluation else None,
        "validation_sex_error": best.get("val_sex_error"),
        "yardstick_mae": run.evaluation.yardstick_mae if run.evaluation else None,
        "epochs": run.epochs,
        "best_epoch": run.best_epoch,
        "parameters": run.parameters,
        "seconds": round(run.seconds, 1),
        "hardware": describe_hardware(device),
        "command": shlex.join(sys.argv),
    }


def _evaluate(folder: Path, datamodule: BoneAgeData, device: str) -> Evaluation:
    # Measured once more along the path that predict takes, not taken from the log.
    predictor = Predictor.load([folder / BUNDLE], device)
    manifest = datamodule.validation_manifest
    batches = datamodule.batches["validation"]
    months = predictor.predict_pixels(batches.pixels, batches.male.cpu().numpy())
    return evaluate_predictions(
        manifest,
        months,
        yardstick=float(datamodule.train_manifest["boneage"].mean()),
        about={
            "model": str(folder / BUNDLE),
            "data": str(datamodule.folder),
            "split": "validation",
        },
    )


def learn_likeness(
    path: Path, datamodule: BoneAgeData, experiment: Experiment, device: str = "auto"
) -> Likeness:
    """Learns what the features of a bundle are like, on what it was and was not trained on.

    Args:
        path: The bundle.
        datamodule: The radiographs of its training, set up.
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


def calibration_of(evaluation: Evaluation) -> Calibration | None:
    """Prediction intervals from errors on the validation split; None of too few radiographs."""
    if evaluation.overall.images < LEAST:
        return None
    source = f"{evaluation.overall.images} radiographs of the validation split"
    return calibrate(evaluation.predictions, source)
