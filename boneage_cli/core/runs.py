"""Run folders, and the table of all runs.

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
of a sweep, in the folder that holds them.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from boneage_cli.core.config import Experiment
from boneage_cli.core.settings_errors import flatten
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import alone_in, whole_file

if TYPE_CHECKING:
    import pandas as pd

Model = TypeVar("Model", bound=BaseModel)

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
# The model that the package carries; its card lies beside it.
SHIPPED_MODEL = Path(__file__).parents[1] / "weights" / "rsna.safetensors"
SUMMARY = "summary.csv"
SUMMARY_COLUMNS = (
    "model_name",
    "num_params",
    "total_training_time_s",
    "train_mae",
    "train_rmse",
    "val_mae",
    "val_rmse",
    "test_mae",
    "test_rmse",
    "val_sex_accuracy",
    "test_sex_accuracy",
    "stopped_epoch",
    "best_epoch",
    "config_file",
    "save_dir",
    # Beyond S1's.
    "data",
    "test_images",
    "test_label_version",
)


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
        wanted = read_json(path / RECORD).get("folds") or len(folds)
        finished = sum((file.parent / RESULT).exists() for file in folds)
        if finished < wanted:
            warnings.warn(
                f"{path}: {finished} of {wanted} folds are finished, and what is there answers for "
                f"all; go on with: boneage train --resume {path}",
                BoneageWarning,
                stacklevel=2,
            )
    return folds or [path / BUNDLE if path.is_dir() else path]


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON document, with null for numbers that are none."""
    text = json.dumps(_finite(values), indent=2, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _finite(values: Any) -> Any:
    """The same with None for what is no number, which JSON has no word for."""
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON document of a run.

    Raises:
        BoneageError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BoneageError(f"{path}: cannot be read ({reason}); is this a run folder?") from None


def read_json_as(kind: type[Model], path: Path) -> Model:
    """Reads a JSON document of a run that has the fields of a model.

    Raises:
        BoneageError: It is missing or damaged.
    """
    values = read_json(path)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = ": ".join((".".join(map(str, first["loc"])) or "all of it", first["msg"]))
        raise BoneageError(f"{path}: cannot be read ({wrong}); is this a run folder?") from None


def add_to_summary(runs: Path, row: Mapping[str, Any], experiment: Experiment) -> None:
    """Adds one run to ``summary.csv``: S1's columns and accuracies, then a ``cfg.`` per setting.

    A run that is already in the table, by its folder, is replaced. A table that cannot be read, or
    is none of runs, stays as it is, with a warning: the run itself is whole.
    """
    import pandas as pd

    path = runs / SUMMARY
    settings = {f"cfg.{key}": value for key, value in flatten(experiment.model_dump(mode="json"))}
    line = pd.DataFrame([{column: row.get(column) for column in SUMMARY_COLUMNS} | settings])
    # Trainings on several devices end when they please.
    with alone_in(runs):
        if path.exists():
            try:
                earlier, folders = _runs_in(path)
            except (OSError, ValueError, KeyError):
                warnings.warn(
                    f"{path}: cannot be read as a table of runs, so this run is not added to it; "
                    "move the file away",
                    BoneageWarning,
                    stacklevel=2,
                )
                return
            earlier = earlier[folders != Path(row["save_dir"]).name]
            line = pd.concat([earlier, line.astype(object)], ignore_index=True)
        with whole_file(path) as temporary:
            line.to_csv(temporary, index=False)


def run_of(path: Path) -> Path | None:
    """The run folder that a path names by itself or by its bundle; None where it is of no run."""
    folder = path.parent if path.name == BUNDLE else path
    return folder if (folder / RECORD).is_file() else None


def add_test_figures(run: Path, figures: Mapping[str, Any]) -> Path | None:
    """Fills in what a run's row of ``summary.csv`` says of the test split.

    Args:
        run: The run folder.
        figures: The ``test_`` columns; None for what is not known.

    Returns:
        The table; None where it has no row of this run, or cannot be read or written.
    """
    path = run.absolute().parent / SUMMARY
    try:
        with alone_in(path.parent):
            table, folders = _runs_in(path)
            rows = folders == run.absolute().name
            if not rows.any():
                return None
            for name, value in figures.items():
                table.loc[rows, name] = value
            with whole_file(path) as temporary:
                table.to_csv(temporary, index=False)
    except (OSError, ValueError, KeyError):
        return None
    return path


def _runs_in(path: Path) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """A table of runs, and each folder's name; OSError, ValueError or KeyError where it is none.

    The runs lie beside the table, wherever the commands were typed that its paths are from.
    """
    import pandas as pd

    table = pd.read_csv(path, dtype=object)
    return table, table["save_dir"].map(lambda folder: Path(str(folder)).name)
