"""What a run folder must hold for a run to begin, resume or count as finished."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment, write_experiment
from boneage_cli.core.run_record import RunRecord
from boneage_cli.core.runs import CHECKPOINT, RUN_RECORD, SETTINGS
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.errors import BoneageError


def begin_folder(folder: Path, experiment: Experiment, record: RunRecord) -> None:
    """Writes the settings and the record of a new run, or cross-validation, into its folder."""
    write_experiment(experiment, folder / SETTINGS)
    record.model_copy(update={"settings_digest": _settings_digest(folder)}).write(folder)


def read_run(folder: Path) -> tuple[RunRecord, Experiment]:
    """Reads the record and the settings of a run, or cross-validation.

    Raises:
        BoneageError: One is missing or damaged, or the settings were edited since the run began.
    """
    record = RunRecord.read(folder)
    experiment = load_experiment(folder / SETTINGS)
    if record.settings_digest != _settings_digest(folder):
        raise BoneageError(
            f"{folder / SETTINGS}: was edited after the run began; undo that, or start a new run: "
            f"boneage train --config {folder / SETTINGS}"
        )
    return record, experiment


def check_folder(folder: Path, experiment: Experiment, record: RunRecord) -> None:
    """Refuses a folder with a run, or a cross-validation, that is not of this work.

    Args:
        folder: The run folder; it need not exist.
        experiment: The settings of this work.
        record: The record that it would have.

    Raises:
        BoneageError: The folder holds a run of other settings or data.
    """
    if not (folder / RUN_RECORD).exists():
        return
    earlier, settings = read_run(folder)
    if settings != experiment or not earlier.is_of_same_work(record):
        raise BoneageError(
            f"{folder}: holds a run of other settings or of another data set; choose another "
            "folder (of a sweep with --output), or remove this one"
        )


def data_of(record: RunRecord, experiment: Experiment) -> BoneAgeData:
    """Returns the data module of a run."""
    return BoneAgeData(record.data, experiment, record.cache, record.fold)


def check_data(folder: Path, record: RunRecord, datamodule: BoneAgeData) -> None:
    """Checks that a run's data set is what it was when the run began.

    Raises:
        BoneageError: Labels or images have changed.
    """
    if datamodule.digest() != record.data_digest:
        raise BoneageError(
            f"{record.data}: the labels or images changed since {folder.name} began; "
            "start a new run"
        )


def check_checkpoint(folder: Path) -> None:
    """Checks that a run's checkpoint is complete.

    Raises:
        BoneageError: It is damaged or cannot be read.
    """
    try:
        # Checkpoints are zip files; this compares the checksums of all parts.
        with zipfile.ZipFile(folder / CHECKPOINT) as parts:
            damaged = parts.testzip() is not None
    except (OSError, zipfile.BadZipFile):
        damaged = True
    if damaged:
        raise BoneageError(
            f"{folder / CHECKPOINT}: damaged; remove it to train this run from its beginning with: "
            f"boneage train --resume {folder}"
        )


def _settings_digest(folder: Path) -> str:
    return hashlib.sha256((folder / SETTINGS).read_bytes()).hexdigest()[:16]
