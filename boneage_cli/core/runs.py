"""Run folders: what lies in them, and what their names mean.

A run folder holds::

    settings.toml                 the experiment, as it was trained
    run.json                      data set, its digest, devices, command
    result.json                   what came out of it: MAE with its interval, weights, time
    history.csv                   one row per epoch
    batches.csv                   one per training.log_every batches, where that is set
    events.out.tfevents…          the same for TensorBoard
    teacher.csv                   where a stage is the teacher: its ages of the train split
    last.ckpt                     to resume from
    best.safetensors              the model of the epoch that was kept, as a bundle
    epoch-005.safetensors…        those of every training.keep_every epochs, where that is set
    learning_curve.png
    validation/                   the bundle's figures on the validation split: metrics.json,
                                  predictions.csv, scatter.png, bland_altman.png, coverage.csv; of
                                  sexes sex_metrics.json, sex_predictions.csv, sex.png

Where the settings have stages, each that came before has such a folder inside: ``stage-1`` and so
on. The folder of a cross-validation holds a run folder per fold, ``fold-1`` and so on, and in
``out-of-fold/`` the figures of all radiographs, each predicted by the model that did not see it.

``summary.csv`` lies beside run folders, one row for each: also beside folds, stages, and the runs
of a sweep, in the folder that holds them (see ``summary``).
"""

from __future__ import annotations

import warnings
from datetime import datetime
from pathlib import Path

from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.json_files import read_json

RUNS = Path("runs")
SETTINGS = "settings.toml"
RECORD = "run.json"
RESULT = "result.json"
BUNDLE = "best.safetensors"
CHECKPOINT = "last.ckpt"
TEACHER = "teacher.csv"
VALIDATION = "validation"
# In both of these: what was said of each radiograph, ages and sexes.
PREDICTIONS = "predictions.csv"
SEX_PREDICTIONS = "sex_predictions.csv"
OUT_OF_FOLD = "out-of-fold"
STAGE = "stage-"
FOLD = "fold-"
# What to ask of a folder whose files cannot be read.
NO_RUN = "is this a run folder?"
# The model that the package carries; its card lies beside it.
SHIPPED_MODEL = Path(__file__).parents[1] / "weights" / "rsna.safetensors"


def new_run_folder(runs: Path, name: str) -> Path:
    """Makes an empty folder, named by time and experiment, that no other run has."""
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
    """The bundles that a path names: a bundle, a run's folder, or one with a run per fold.

    A cross-validation that is not finished is warned of: its folds so far stand for all.
    """
    folds = sorted(path.glob(f"{FOLD}*/{BUNDLE}")) if path.is_dir() else []
    if folds and (path / RECORD).exists():
        wanted = read_json(path / RECORD, NO_RUN).get("folds") or len(folds)
        finished = sum((file.parent / RESULT).exists() for file in folds)
        if finished < wanted:
            warnings.warn(
                f"{path}: {finished} of {wanted} folds are finished, and what is there answers for "
                f"all; go on with: boneage train --resume {path}",
                BoneageWarning,
                stacklevel=2,
            )
    return folds or [path / BUNDLE if path.is_dir() else path]


def run_of(path: Path) -> Path | None:
    """The run folder that a path names by itself or by its bundle; None where it is of no run."""
    folder = path.parent if path.name == BUNDLE else path
    return folder if (folder / RECORD).is_file() else None
