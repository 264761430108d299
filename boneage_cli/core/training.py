"""One training run, from settings and a data set to a run folder with a bundle."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from boneage_cli.core import plots
from boneage_cli.core.acceptance import Likeness, fit_likeness
from boneage_cli.core.bundle import Bundle, build_network, load_bundle, save_bundle
from boneage_cli.core.config import (
    Experiment,
    TrainingSettings,
    earlier_stages,
    load_experiment,
    write_experiment,
)
from boneage_cli.core.datamodule import BoneAgeData, Fold, mean_and_deviation
from boneage_cli.core.evaluation import Evaluation, evaluate_predictions, write_evaluation
from boneage_cli.core.hardware import choose_precision, describe_hardware, keep_freed_memory
from boneage_cli.core.intervals import COVERAGE, LEAST, Calibration, calibrate, write_coverage
from boneage_cli.core.logs import check_loggers, close_loggers, run_loggers
from boneage_cli.core.module import BoneAgeModule
from boneage_cli.core.prediction import Predictor
from boneage_cli.core.recorder import EpochRow, RunRecorder, TrainingProgress
from boneage_cli.core.runs import (
    BUNDLE,
    CHECKPOINT,
    RECORD,
    RESULT,
    RUNS,
    SETTINGS,
    STAGE,
    TEACHER,
    add_to_summary,
    new_run_folder,
    read_json,
    write_json,
)
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError, BoneageWarning, Interrupted
from boneage_cli.files import whole_file
from boneage_cli.models.depthwise import quicken_depthwise
from boneage_cli.models.network import Network
from boneage_cli.models.pretrained import PretrainedError, load_pretrained, take_from_network
from boneage_cli.progress import track

Report = Callable[[EpochRow], None]
Begin = Callable[[Experiment], None]

LIGHTNING_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def silent(news: Any) -> None:
    """Says nothing, neither of an epoch nor of a stage."""


@dataclass(frozen=True)
class Resources:
    """Where a training runs and what it keeps outside its run folder.

    Attributes:
        cache: Where decoded images are kept; None for the data set's folder.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: The number of machines.
        wandb: The Weights & Biases project that the figures also go to; None for none.
    """

    cache: Path | None = None
    devices: str = "auto"
    nodes: int = 1
    wandb: str | None = None

    def on_one_device(self, asked: str) -> Resources:
        """The same on one device, where several trainings follow each other in one process.

        Args:
            asked: What asks for them, for the message.

        Raises:
            BoneageError: Several devices were asked for.
        """
        if self.nodes > 1 or self.devices not in ("auto", "cpu", "1"):
            raise BoneageError(
                f"{asked}: trains on one device; start it without --devices and --nodes"
            )
        return replace(self, devices="1") if self.devices == "auto" else self


# Training radiographs whose features are learnt, for the refusal of images that are unlike them.
LIKENESS_IMAGES = 4000

_TAUGHT_AT_A_TIME = 256


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


def train(
    experiment: Experiment,
    data: Path,
    *,
    runs: Path = RUNS,
    folder: Path | None = None,
    fold: Fold | None = None,
    config_file: Path | None = None,
    resources: Resources | None = None,
    begin_with: Path | None = None,
    teacher: Path | None = None,
    begin: Begin = silent,
    report: Report = silent,
) -> Run:
    """Trains a model, after the stages that its settings put before it.

    Args:
        experiment: The settings.
        data: The data set's folder, with a train and a validation split.
        runs: Where a new run folder is made, named by time and experiment.
        folder: The run folder itself, instead.
        fold: The part of both splits that is held out; None to validate on the validation split.
        config_file: The file that the settings came from, for the table of runs.
        resources: Devices, cache and logs.
        begin_with: A bundle whose weights come in place of those that the settings name.
        teacher: The bundle of the stage that the settings name as the teacher, where that is none
            of this training's own.
        begin: Called with the settings of each stage when its training begins.
        report: Called with the figures of each epoch.

    Raises:
        BoneageError: The data or the settings do not allow it.
        Interrupted: The user stopped it; the message says how to go on.
    """
    resources = resources or Resources()
    if experiment.stages:
        resources = resources.on_one_device("stages")
    check_loggers(resources.wandb)
    # Before there is a run folder.
    _accelerator(resources.devices)
    cache = resources.cache
    datamodule = BoneAgeData(data, experiment, cache, fold)
    network = _new_network(experiment, datamodule)
    _check_stages(experiment, teacher)
    record = {
        "data": str(data.absolute()),
        "cache": str(cache.absolute()) if cache else None,
        "fold": [fold.number, fold.count] if fold else None,
        "data_digest": datamodule.digest(),
        "config_file": str(config_file) if config_file else None,
        "command": shlex.join(sys.argv),
        "devices": resources.devices,
        "nodes": resources.nodes,
        "wandb": resources.wandb,
        "begin_with": str(begin_with.absolute()) if begin_with else None,
        "teacher": str(teacher.absolute()) if teacher else None,
    }
    if not is_main_process():
        # The main process makes the folder, and is the only one that writes there.
        folder = folder or runs / experiment.name
    else:
        folder = new_run_folder(runs, experiment.name) if folder is None else folder
        write_experiment(experiment, folder / SETTINGS)
        write_json(record, folder / RECORD)
    with _resumable(folder):
        _take_up(folder, record, network, experiment, begin, report)
        return _fit(folder, record, datamodule, network, experiment, report, resume=False)


def train_into(
    folder: Path,
    experiment: Experiment,
    data: Path,
    *,
    fold: Fold | None = None,
    config_file: Path | None = None,
    resources: Resources | None = None,
    begin_with: Path | None = None,
    teacher: Path | None = None,
    begin: Begin = silent,
    report: Report = silent,
) -> dict[str, Any]:
    """Trains into a folder, or goes on with what was begun there, or takes what is finished.

    Args:
        folder: The run folder.
        experiment: As in ``train``, as are the others.
        data: The data set's folder.
        fold: The part that is held out.
        config_file: The file that the settings came from.
        resources: Devices, cache and logs, where training begins.
        begin_with: The weights to begin with.
        teacher: The teacher's bundle.
        begin: Called with the settings of each stage.
        report: Called with the figures of each epoch.

    Returns:
        The figures of ``result.json``.

    Raises:
        BoneageError: The folder holds a run of other settings or data.
        Interrupted: The user stopped it.
    """
    if not (folder / RECORD).exists():
        train(
            experiment,
            data,
            folder=folder,
            fold=fold,
            config_file=config_file,
            resources=resources,
            begin_with=begin_with,
            teacher=teacher,
            begin=begin,
            report=report,
        )
    else:
        record = read_json(folder / RECORD)
        asked = {"data": str(data.absolute()), "fold": [fold.number, fold.count] if fold else None}
        if (
            load_experiment(folder / SETTINGS) != experiment
            or any(record.get(key) != value for key, value in asked.items())
            or "folds" in record
        ):
            raise BoneageError(
                f"{folder}: holds a run of other settings or of another data set; choose another "
                "folder, or remove this one"
            )
        if (folder / RESULT).exists():
            _check_data(folder, record, BoneAgeData(data, experiment, fold=fold))
        else:
            resume(folder, begin=begin, report=report)
    return read_json(folder / RESULT)


def is_main_process() -> bool:
    """Whether this is the process that writes and prints, of one or several that train."""
    return getattr(rank_zero_only, "rank", 0) == 0


def resume(folder: Path, *, begin: Begin = silent, report: Report = silent) -> Run:
    """Goes on with a run that was interrupted, to the same result as if it had not been.

    Args:
        folder: The run folder.
        begin: Called with the settings of each stage that is still to come.
        report: Called with the figures of each epoch.

    Raises:
        BoneageError: It is no run folder, or the data set is not the one it began with.
        Interrupted: The user stopped it; the message says how to go on.
    """
    record = read_json(folder / RECORD)
    experiment = load_experiment(folder / SETTINGS)
    datamodule = data_of(record, experiment)
    _check_data(folder, record, datamodule)
    network = _new_network(experiment, datamodule)
    started = (folder / CHECKPOINT).exists()
    with _resumable(folder):
        if not started:
            _take_up(folder, record, network, experiment, begin, report)
        return _fit(folder, record, datamodule, network, experiment, report, resume=started)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Has an interrupt say how to go on with a run, wherever in it the user stops it."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; go on with: boneage train --resume {folder}") from None


def data_of(record: Mapping[str, Any], experiment: Experiment) -> BoneAgeData:
    """The radiographs of a run, by what its ``run.json`` says."""
    cache = Path(record["cache"]) if record["cache"] else None
    fold = Fold(*record["fold"]) if record["fold"] else None
    return BoneAgeData(Path(record["data"]), experiment, cache, fold)


def resources_of(record: Mapping[str, Any]) -> Resources:
    """Where a run trains, by what its ``run.json`` says."""
    cache = Path(record["cache"]) if record["cache"] else None
    return Resources(cache, record["devices"], record.get("nodes", 1), record["wandb"])


def _check_data(folder: Path, record: dict[str, Any], datamodule: BoneAgeData) -> None:
    if datamodule.digest() != record["data_digest"]:
        raise BoneageError(
            f"{record['data']}: the labels or images changed since {folder.name} began; "
            "start a new run"
        )


def _new_network(experiment: Experiment, datamodule: BoneAgeData) -> Network:
    torch.manual_seed(experiment.training.seed)
    network = build_network(experiment, *mean_and_deviation(datamodule.train_manifest["boneage"]))
    _warn_of_new_parts(experiment, load_pretrained(network, experiment.model.weights))
    return network


def _warn_of_new_parts(experiment: Experiment, taken: str) -> None:
    # Nothing in the figures of the epochs says that a head was not taken along.
    if "anew" in taken:
        warnings.warn(f"{experiment.name}: {taken}", BoneageWarning, stacklevel=3)


def _check_stages(experiment: Experiment, teacher: Path | None) -> None:
    """Finds out, before any is trained, what each stage can take of those before.

    Raises:
        BoneageError: An encoder does not fit, or a teacher comes too late or knows no ages.
    """
    stages = [*earlier_stages(experiment), experiment]
    if teacher is None:
        for number, stage in enumerate(stages, 1):
            _check_teacher(stage, number, stages)
    learnt: Network | None = None
    for number, stage in enumerate(stages if experiment.stages else ()):
        # Ages change no shapes.
        network = build_network(stage, 0, 1)
        if stage.training.anew:
            load_pretrained(network, stage.model.weights)
        elif learnt is not None:
            try:
                taken = take_from_network(network, learnt.state_dict(), f"stage {number}")
            except PretrainedError as error:
                raise PretrainedError(
                    f"{error}; another one begins with training.anew = true, and a teacher"
                ) from None
            _warn_of_new_parts(stage, taken)
        learnt = network


def _check_teacher(stage: Experiment, number: int, stages: Sequence[Experiment]) -> None:
    teacher = stage.training.teacher
    if teacher >= number:
        raise BoneageError(
            f"{stage.name}: training.teacher = {teacher} is no stage before it, of which there "
            f"{'is' if number == 2 else 'are'} {number - 1 or 'none'}; "
            f"{'name one of them, or 0' if number > 1 else 'set it to 0'}"
        )
    if teacher and not all("age" in each.model.targets for each in (stage, stages[teacher - 1])):
        raise BoneageError(f"{stage.name}: training.teacher is for ages; model.targets has none")
    if stage.training.anew and not teacher:
        raise BoneageError(
            f"{stage.name}: training.anew without a teacher leaves nothing of the stages before; "
            "name one in training.teacher, or train it by itself"
        )


def _take_up(
    folder: Path,
    record: dict[str, Any],
    network: Network,
    experiment: Experiment,
    begin: Begin,
    report: Report,
) -> None:
    """Gives a network the weights of the stages before; those that are missing are trained."""
    weights = Path(record["begin_with"]) if record.get("begin_with") else None
    for number, (stage, following) in enumerate(
        pairwise([*earlier_stages(experiment), experiment]), 1
    ):
        place = folder / f"{STAGE}{number}"
        if not (place / RESULT).exists():
            begin(stage)
        try:
            train_into(
                place,
                stage,
                Path(record["data"]),
                fold=Fold(*record["fold"]) if record["fold"] else None,
                config_file=Path(record["config_file"]) if record["config_file"] else None,
                resources=resources_of(record),
                begin_with=weights,
                teacher=_bundle_of_teacher(folder, stage),
                begin=begin,
                report=report,
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted in stage {number}; go on with: boneage train --resume {folder}"
            ) from None
        weights = None if following.training.anew else place / BUNDLE
    if experiment.stages:
        begin(experiment)
    if weights is not None:
        load_pretrained(network, str(weights))


def _bundle_of_teacher(folder: Path, stage: Experiment) -> Path | None:
    """The model of the stage that teaches another, in the folder of the run that has both."""
    number = stage.training.teacher
    return folder / f"{STAGE}{number}" / BUNDLE if number else None


def _teach(
    folder: Path, record: Mapping[str, Any], datamodule: BoneAgeData, experiment: Experiment
) -> None:
    """Makes the teacher's ages a part of what is learnt (Hinton et al. 2015, arXiv:1503.02531).

    Readers' ages differ from each other by half a year; a teacher's, of the same radiographs as
    they are, have less chance in them. They are kept in the run folder: a resumed run has the same.
    """
    bundle = Path(record["teacher"]) if record.get("teacher") else None
    bundle = bundle or _bundle_of_teacher(folder, experiment)
    if bundle is None:
        return
    datamodule.prepare_data()
    manifest = datamodule.train_manifest
    kept = folder / TEACHER
    if not kept.exists():
        shown = datamodule.train_batches_of(load_bundle(bundle).experiment)
        predictor = Predictor.load([bundle], _device(record["devices"]))
        parts = np.array_split(np.arange(len(shown)), math.ceil(len(shown) / _TAUGHT_AT_A_TIME))

        def months_of(part: np.ndarray) -> np.ndarray:
            sexes = shown.male[part].numpy()
            return predictor.predict_pixels(lambda rows: shown.pixels(part[rows]), sexes)

        found = track(
            map(months_of, parts), description="ask the teacher", total=len(parts), unit="batch"
        )
        months = np.concatenate(list(found))
        with whole_file(kept) as temporary:
            table = pd.DataFrame({"id": manifest["id"], "months": months})
            table.to_csv(temporary, index=False)
    months = np.array(pd.read_csv(kept)["months"], dtype=float)
    datamodule.batches["train"].teach(months, experiment.training.teacher_share)


def make_module(network: Network, experiment: Experiment) -> BoneAgeModule:
    """The training steps of a network, in the memory format that is fastest, compiled on request.

    Args:
        network: The network; it is changed in place.
        experiment: The settings.
    """
    # Convolutions run a quarter faster so on CPUs, and on the tensor cores of GPUs.
    network.to(memory_format=torch.channels_last)
    quicken_depthwise(network)
    module = BoneAgeModule(network, experiment)
    if experiment.training.compile:
        network.compile()
    return module


def make_trainer(
    settings: TrainingSettings, *, devices: str = "auto", nodes: int = 1, **options: Any
) -> pl.Trainer:
    """The Lightning trainer that every training of months or sex runs in.

    Args:
        settings: Epochs, precision, clipping and the like.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: The number of machines.
        options: Logger, callbacks and whatever else differs, as Lightning takes them.

    Raises:
        BoneageError: ``devices`` makes no sense, or the device cannot run at this precision.
    """
    _quiet_lightning()
    accelerator, count = _accelerator(devices)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    if accelerator == "cpu":
        keep_freed_memory()
    # A frozen encoder gets no gradients, which the processes must expect and look for.
    parallel = "ddp_find_unused_parameters_true" if settings.frozen_epochs else "ddp"
    return pl.Trainer(
        accelerator=accelerator,
        devices=count,
        num_nodes=nodes,
        strategy=parallel if nodes * count > 1 else "auto",
        precision=LIGHTNING_PRECISION[choose_precision(settings.precision, device, training=True)],
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        accumulate_grad_batches=settings.accumulate,
        deterministic=settings.deterministic or None,
        # Batches have one or two shapes, so trying cuDNN's algorithms on the first pays.
        benchmark=accelerator == "gpu" and not settings.deterministic,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def _fit(
    folder: Path,
    record: dict[str, Any],
    datamodule: BoneAgeData,
    network: Network,
    experiment: Experiment,
    report: Report,
    *,
    resume: bool,
) -> Run:
    module = make_module(network, experiment)
    mean, deviation = mean_and_deviation(datamodule.train_manifest["boneage"])
    untrained = Bundle(experiment, mean, deviation, {}, provenance=_provenance(datamodule, record))
    recorder = RunRecorder(folder, untrained, report)
    trainer = make_trainer(
        experiment.training,
        devices=record["devices"],
        nodes=record["nodes"],
        logger=run_loggers(folder, record["wandb"]),
        callbacks=[recorder, TrainingProgress()],
    )
    try:
        _teach(folder, record, datamodule, experiment)
        trainer.fit(
            module,
            datamodule=datamodule,
            ckpt_path=folder / CHECKPOINT if resume else None,
            weights_only=True,
        )
        return _finish(folder, record, datamodule, module, recorder, trainer)
    except SystemExit:
        # Lightning turns an interrupt into an exit; ours says how to go on.
        raise KeyboardInterrupt from None
    finally:
        datamodule.release()
        close_loggers(record["wandb"])


def _finish(
    folder: Path,
    record: dict[str, Any],
    datamodule: BoneAgeData,
    module: BoneAgeModule,
    recorder: RunRecorder,
    trainer: pl.Trainer,
) -> Run:
    experiment, device = module.experiment, _device(record["devices"])
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


def _device(devices: str) -> str:
    return "cuda" if _accelerator(devices)[0] == "gpu" else "cpu"


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


def _provenance(datamodule: BoneAgeData, record: Mapping[str, Any]) -> dict[str, Any]:
    source = read_source(datamodule.folder)
    return {
        "data": source.name if source else datamodule.folder.name,
        "label_version": source.label_version if source else None,
        "train_images": len(datamodule.train_manifest),
        "validation_images": len(datamodule.validation_manifest),
        "data_digest": record["data_digest"],
        "torch": torch.__version__,
        "hardware": describe_hardware(_device(record["devices"])),
    }


def _accelerator(devices: str) -> tuple[str, int]:
    gpu = torch.cuda.is_available()
    if devices == "auto":
        return ("gpu", torch.cuda.device_count()) if gpu else ("cpu", 1)
    if devices == "cpu":
        return "cpu", 1
    if not devices.isdigit() or int(devices) < 1:
        raise BoneageError(f"--devices {devices}: take auto, cpu or a number of devices")
    if gpu and int(devices) > torch.cuda.device_count():
        raise BoneageError(f"--devices {devices}: there are {torch.cuda.device_count()} GPUs here")
    return "gpu" if gpu else "cpu", int(devices)


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It advises loader processes, which cached bytes do not need, and logging at every step.
    warnings.filterwarnings("ignore", module=r"lightning\.")
