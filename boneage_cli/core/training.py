"""One training run, from settings and a data set to a run folder with a bundle."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from boneage_cli.core.bundle import Bundle, build_network
from boneage_cli.core.config import Experiment, earlier_stages, load_experiment, write_experiment
from boneage_cli.core.datamodule import BoneAgeData, Fold, mean_and_deviation
from boneage_cli.core.hardware import describe_hardware
from boneage_cli.core.logs import check_loggers, close_loggers, run_loggers
from boneage_cli.core.outcome import Run, finish
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
    new_run_folder,
    read_json,
    write_json,
)
from boneage_cli.core.stages import check_stages, warn_of_new_parts
from boneage_cli.core.teacher import teach
from boneage_cli.core.trainer import accelerator_of, device_of, make_module, make_trainer
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.models.network import Network
from boneage_cli.models.pretrained import load_pretrained

Report = Callable[[EpochRow], None]
Begin = Callable[[Experiment], None]


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
    accelerator_of(resources.devices)
    cache = resources.cache
    datamodule = BoneAgeData(data, experiment, cache, fold)
    network = _new_network(experiment, datamodule)
    check_stages(experiment, teacher)
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
    result = read_json(folder / RESULT)
    if "sex" in experiment.model.targets and "validation_sex_accuracy" not in result:
        raise BoneageError(
            f"{folder}: was trained by an earlier version, which measured no sexes; choose another "
            "folder, or remove this one"
        )
    return result


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
    except (SystemExit, KeyboardInterrupt):
        # Lightning turns an interrupt into an exit.
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
    warn_of_new_parts(experiment, load_pretrained(network, experiment.model.weights))
    return network


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
        # A finished run has nothing to add.
        logger=[] if (folder / RESULT).exists() else run_loggers(folder, record["wandb"]),
        callbacks=[recorder, TrainingProgress()],
    )
    try:
        bundle = Path(record["teacher"]) if record.get("teacher") else None
        bundle = bundle or _bundle_of_teacher(folder, experiment)
        if bundle is not None:
            share, device = experiment.training.teacher_share, device_of(record["devices"])
            teach(datamodule, bundle, share, folder / TEACHER, device)
        trainer.fit(
            module,
            datamodule=datamodule,
            ckpt_path=folder / CHECKPOINT if resume else None,
            weights_only=True,
        )
        return finish(folder, record, datamodule, module, recorder, trainer)
    finally:
        datamodule.release()
        close_loggers(record["wandb"])


def _provenance(datamodule: BoneAgeData, record: Mapping[str, Any]) -> dict[str, Any]:
    source = read_source(datamodule.folder)
    return {
        "data": source.name if source else datamodule.folder.name,
        "label_version": source.label_version if source else None,
        "train_images": len(datamodule.train_manifest),
        "validation_images": len(datamodule.validation_manifest),
        "data_digest": record["data_digest"],
        "torch": torch.__version__,
        "hardware": describe_hardware(device_of(record["devices"])),
    }
