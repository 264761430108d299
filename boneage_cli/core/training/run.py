"""One training run, from settings and a data set to a run folder with a bundle."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from boneage_cli.core.bundle import Bundle, build_network, trained_on_in
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import earlier_stages
from boneage_cli.core.fingerprints import Fingerprints, all_of, fingerprints, is_among
from boneage_cli.core.hardware import describe_hardware
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.runs import (
    BUNDLE,
    CHECKPOINT,
    RESULT,
    RUN_RECORD,
    RUNS,
    STAGE,
    TEACHER,
    new_run_folder,
)
from boneage_cli.core.training.datamodule import BoneAgeData, mean_and_deviation
from boneage_cli.core.training.logs import check_loggers, close_loggers, run_loggers
from boneage_cli.core.training.outcome import Run, finish
from boneage_cli.core.training.recorder import EpochRow, RunRecorder, TrainingProgress
from boneage_cli.core.training.run_folder import (
    begin_folder,
    check_checkpoint,
    check_data,
    check_folder,
    data_of,
    read_run,
)
from boneage_cli.core.training.run_result import RunResult
from boneage_cli.core.training.stages import check_stages, warn_of_untrained_parts
from boneage_cli.core.training.teacher import teach
from boneage_cli.core.training.trainer import (
    accelerator_of,
    device_of,
    make_module,
    make_trainer,
    training_precision,
)
from boneage_cli.datasets.source import read_source
from boneage_cli.errors import BoneageError, BoneageWarning, Interrupted
from boneage_cli.files import explaining_write_errors
from boneage_cli.locks import LOCK, only_process
from boneage_cli.models.network import Network
from boneage_cli.models.pretrained import load_pretrained

Report = Callable[[EpochRow], None]
Begin = Callable[[Experiment], None]


def silent(news: Any) -> None:
    """Does nothing: the default callback for stages and epochs."""


def train(
    experiment: Experiment,
    data: Path,
    *,
    runs: Path = RUNS,
    config_file: Path | None = None,
    resources: Resources | None = None,
    started: Callable[[Path], None] = silent,
    begin: Begin = silent,
    report: Report = silent,
) -> Run:
    """Trains a model, including the earlier stages in its settings.

    Args:
        experiment: The settings.
        data: The data set's folder, with a train and a validation split.
        runs: The folder in which a new run folder is made, named by time and experiment.
        config_file: The file that the settings came from, for the table of runs.
        resources: Devices, cache and logs.
        started: Called with the run folder when it is made.
        begin: Called with the settings of each stage when its training begins.
        report: Called with the metrics of each epoch.

    Raises:
        BoneageError: The data or the settings do not allow it.
        Interrupted: The user stopped it; the message says how to resume.
    """
    record = RunRecord.new(data, resources, config_file=config_file)
    return _train(experiment, record, None, runs, begin, report, started)


def train_into(
    folder: Path,
    experiment: Experiment,
    record: RunRecord,
    *,
    begin: Begin = silent,
    report: Report = silent,
) -> RunResult:
    """Trains in a folder: starts a run, resumes an unfinished one, or reads a finished one.

    Args:
        folder: The run folder.
        experiment: The settings.
        record: The record of a new run, which an existing run must match.
        begin: Called with the settings of each stage.
        report: Called with the metrics of each epoch.

    Returns:
        The result of the run.

    Raises:
        BoneageError: The folder holds a run of other settings or data.
        Interrupted: The user stopped it.
    """
    _take_rank(record)
    with explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if (folder / RUN_RECORD).exists():
            check_folder(folder, experiment, record)
            if (folder / RESULT).exists():
                check_data(folder, RunRecord.read(folder), data_of(record, experiment))
            else:
                _resume(folder, record, begin, report)
            return RunResult.read(folder)
        try:
            _train(experiment, record, folder, folder.parent, begin, report)
        finally:
            if not (folder / RUN_RECORD).exists():
                # Settings or data that allow no training leave nothing that could be resumed.
                (folder / LOCK).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()
        return RunResult.read(folder)


def _train(
    experiment: Experiment,
    record: RunRecord,
    folder: Path | None,
    runs: Path,
    begin: Begin,
    report: Report,
    started: Callable[[Path], None] = silent,
) -> Run:
    if experiment.stages:
        record = record.on_one_device("stages")
    _take_rank(record)
    # Checked before the run folder is made.
    check_loggers(record.wandb)
    for stage in (*earlier_stages(experiment), experiment):
        training_precision(stage.training.precision, record.devices)
    datamodule = data_of(record, experiment)
    network = _new_network(experiment, datamodule)
    check_stages(experiment, record.teacher)
    record = record.model_copy(update={"data_digest": datamodule.digest()})
    with ExitStack() as stack:
        if not is_main_process():
            # Only the main process makes the folder and writes to it.
            folder = folder or runs / experiment.name
        else:
            if folder is None:
                folder = new_run_folder(runs, experiment.name)
                stack.enter_context(_alone(folder))
            begin_folder(folder, experiment, record)
            started(folder)
        stack.enter_context(_resumable(folder))
        _take_up(folder, record, network, experiment, begin, report)
        return _fit(folder, record, datamodule, network, experiment, report, resume=False)


def _take_rank(record: RunRecord) -> None:
    """Makes this the main process if it trains alone, also as one of several tasks of a job.

    Such tasks, of Slurm's srun for example, have different ranks in their environment.
    """
    if record.nodes * accelerator_of(record.devices)[1] == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]


def is_main_process() -> bool:
    """Whether this training process is the one that writes and prints."""
    return getattr(rank_zero_only, "rank", 0) == 0


def resume(folder: Path, *, begin: Begin = silent, report: Report = silent) -> Run:
    """Resumes an interrupted run; the result is the same as without the interruption.

    Args:
        folder: The run folder.
        begin: Called with the settings of each stage that is still to come.
        report: Called with the metrics of each epoch.

    Raises:
        BoneageError: It is not a run folder, or the data set or the settings are not those that it
            began with.
        Interrupted: The user stopped it; the message says how to resume.
    """
    record = RunRecord.read(folder)
    _take_rank(record)
    with _alone(folder):
        return _resume(folder, record, begin, report)


def _resume(folder: Path, given: RunRecord, begin: Begin, report: Report) -> Run:
    record, experiment = read_run(folder)
    # The folder of the run that this is a stage of may have been moved.
    record = record.of_stage(given.begin_with, given.teacher)
    datamodule = data_of(record, experiment)
    check_data(folder, record, datamodule)
    # The checkpoint has all weights; the files of pretrained ones may be gone by now.
    started = (folder / CHECKPOINT).exists()
    network = _new_network(experiment, datamodule, pretrained=not started)
    with _resumable(folder):
        if not started:
            _take_up(folder, record, network, experiment, begin, report)
        return _fit(folder, record, datamodule, network, experiment, report, resume=started)


def _alone(folder: Path) -> AbstractContextManager[None]:
    """Keeps a run folder to one process, and those that train the same run with it."""
    if not is_main_process():
        return nullcontext()
    return only_process(folder, f"{folder}: another process is training it; wait for that")


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Adds to an interrupt or a disk's error how to resume."""
    try:
        yield
    except Interrupted:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # Of a copy between disks, the second name is the one that could not be written.
        place = error.filename2 or error.filename or folder
        raise BoneageError(
            f"{place}: cannot be written ({error.strerror or error}); make room there, then go on "
            f"with: boneage train --resume {folder}"
        ) from None
    except (SystemExit, KeyboardInterrupt):
        # Lightning turns an interrupt into an exit.
        raise Interrupted(f"interrupted; go on with: boneage train --resume {folder}") from None


def _new_network(
    experiment: Experiment, datamodule: BoneAgeData, *, pretrained: bool = True
) -> Network:
    torch.manual_seed(experiment.training.seed)
    network = build_network(experiment, *mean_and_deviation(datamodule.train_manifest["boneage"]))
    if pretrained:
        warn_of_untrained_parts(experiment, load_pretrained(network, experiment.model.weights))
    return network


def _take_up(
    folder: Path,
    record: RunRecord,
    network: Network,
    experiment: Experiment,
    begin: Begin,
    report: Report,
) -> None:
    """Loads the weights of the earlier stages into a network; trains stages that are missing."""
    weights = record.begin_with
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
                record.of_stage(weights, _bundle_of_teacher(folder, stage)),
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
    """Path of the earlier stage's bundle that teaches a stage; None if the stage has no teacher."""
    number = stage.training.teacher
    return folder / f"{STAGE}{number}" / BUNDLE if number else None


def _fit(
    folder: Path,
    record: RunRecord,
    datamodule: BoneAgeData,
    network: Network,
    experiment: Experiment,
    report: Report,
    *,
    resume: bool,
) -> Run:
    module = make_module(network, experiment)
    mean, deviation = mean_and_deviation(datamodule.train_manifest["boneage"])
    inherited = all_of([trained_on_in(path) for path in _origins(folder, record, experiment)])
    # Said once: of a run with stages by the first.
    if inherited is not None and not (resume or record.begin_with or experiment.stages):
        _warn_of_seen(datamodule.validation_manifest, inherited, experiment.model.weights)
    untrained = Bundle(
        experiment,
        mean,
        deviation,
        {},
        provenance=_provenance(datamodule, record),
        trained_on=all_of([fingerprints(datamodule.train_manifest), inherited]),
    )
    recorder = RunRecorder(folder, untrained, report)
    trainer = make_trainer(
        experiment.training,
        devices=record.devices,
        nodes=record.nodes,
        # A finished run has nothing to log.
        logger=[] if (folder / RESULT).exists() else run_loggers(folder, record.wandb),
        callbacks=[recorder, TrainingProgress()],
    )
    try:
        bundle = record.teacher or _bundle_of_teacher(folder, experiment)
        if resume:
            check_checkpoint(folder)
        if bundle is not None:
            share, device = experiment.training.teacher_share, device_of(record.devices)
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
        close_loggers(record.wandb)


def _origins(folder: Path, record: RunRecord, experiment: Experiment) -> list[Path]:
    """Bundles whose training reaches into this one's, by initial weights or as a teacher."""
    stages = [folder / f"{STAGE}{number}" / BUNDLE for number, _ in enumerate(experiment.stages, 1)]
    before = [record.begin_with, record.teacher, Path(experiment.model.weights)]
    # A resumed run's own, because the file that it began with may be gone.
    return [*filter(None, before), *stages, folder / BUNDLE]


def _warn_of_seen(validation: pd.DataFrame, trained_on: Fingerprints, weights: str) -> None:
    seen = int(is_among(validation, trained_on).sum())
    if seen:
        warnings.warn(
            f"{weights}: trained on {seen:,} of the {len(validation):,} validation radiographs, so "
            "the validation figures will flatter the model; begin with weights that did not see "
            "them",
            BoneageWarning,
            stacklevel=2,
        )


def _provenance(datamodule: BoneAgeData, record: RunRecord) -> dict[str, Any]:
    source = read_source(datamodule.folder)
    return {
        "data": source.name if source else datamodule.folder.name,
        "label_version": source.label_version if source else None,
        "train_images": len(datamodule.train_manifest),
        "validation_images": len(datamodule.validation_manifest),
        "data_digest": record.data_digest,
        "torch": torch.__version__,
        "hardware": describe_hardware(device_of(record.devices)),
    }
