"""Run folders: the names of their files.

A run folder contains::

    settings.toml                 the experiment, as it was trained
    run.json                      data set, its digest, devices, command
    result.json                   the result: MAE with its interval, weights, time
    history.csv                   one row per epoch
    batches.csv                   one row per training.log_every batches, if that is set
    events.out.tfevents…          the same for TensorBoard
    teacher.csv                   if a stage is the teacher: its ages of the train split
    last.ckpt                     to resume from
    best.safetensors              the model of the epoch that was kept, as a bundle
    epoch-005.safetensors…        one bundle per training.keep_every epochs, if that is set
    learning_curve.png
    .lock                         held while a process trains here
    validation/                   metrics on the validation split: metrics.json, predictions.csv,
                                  scatter.png, bland_altman.png, coverage.csv; for sexes
                                  sex_metrics.json, sex_predictions.csv, sex.png

Earlier stages have run folders inside it, ``stage-1`` and so on. The folder of a cross-validation
contains a run folder per fold, ``fold-1`` and so on, and in ``out-of-fold/`` the metrics over all
radiographs, each predicted by the model that was not trained on it.

Every folder that contains run folders (of runs, folds, stages or a sweep) has a ``summary.csv``
with one row for each (see ``summary``).
"""

from __future__ import annotations

import warnings
from datetime import datetime
from pathlib import Path

from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.json_files import read_json

RUNS = Path("runs")
SETTINGS = "settings.toml"
RUN_RECORD = "run.json"
RESULT = "result.json"
BUNDLE = "best.safetensors"
CHECKPOINT = "last.ckpt"
TEACHER = "teacher.csv"
VALIDATION = "validation"
# Predicted ages and sexes of each radiograph, in ``VALIDATION`` and in ``OUT_OF_FOLD``.
PREDICTIONS = "predictions.csv"
SEX_PREDICTIONS = "sex_predictions.csv"
OUT_OF_FOLD = "out-of-fold"
STAGE = "stage-"
FOLD = "fold-"
# Hint in the message about a folder whose files cannot be read.
NO_RUN = "is this a run folder?"
# The package's model; its model card is in the same folder.
SHIPPED_MODEL = Path(__file__).parents[1] / "weights" / "rsna.safetensors"


def new_run_folder(runs: Path, name: str) -> Path:
    """Creates a new, empty folder named by time and experiment."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = runs / f"{stem}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise BoneageError(
                f"{folder}: cannot be made ({error.strerror}); choose another place with --runs"
            ) from None
        return folder
    raise BoneageError(f"{runs}: too many runs named {stem}; choose another place with --runs")


def bundles_at(path: Path) -> list[Path]:
    """Returns the bundles at a path: a bundle, a run folder, or that of a cross-validation.

    Warns if a training is not finished. Of a cross-validation, only the folds so far are returned.
    """
    folds = sorted(path.glob(f"{FOLD}*/{BUNDLE}")) if path.is_dir() else []
    if folds and (path / RUN_RECORD).exists():
        wanted = read_json(path / RUN_RECORD, NO_RUN).get("folds") or len(folds)
        finished = sum((file.parent / RESULT).exists() for file in folds)
        if finished < wanted:
            warnings.warn(
                f"{path}: only {finished} of {wanted} folds are finished, and their models are "
                f"used; finish with: boneage train --resume {path}",
                BoneageWarning,
                stacklevel=2,
            )
    elif (path / RUN_RECORD).exists() and not (path / RESULT).exists():
        warnings.warn(
            f"{path}: its training is not finished, and its best model so far is used; finish "
            f"with: boneage train --resume {path}",
            BoneageWarning,
            stacklevel=2,
        )
    return folds or [path / BUNDLE if path.is_dir() else path]


def run_of(path: Path) -> Path | None:
    """Returns the run folder of a path, the folder itself or its bundle; None if it is no run."""
    folder = path.parent if path.name == BUNDLE else path
    return folder if (folder / RUN_RECORD).is_file() else None
