"""Compares the errors of models on the same radiographs.

Differences are paired: errors are subtracted per radiograph before they are averaged, which can
show a difference between models whose own intervals overlap.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.ages import read_prediction_table
from boneage_cli.core.evaluation.grouped_metrics import age_groups
from boneage_cli.core.evaluation.metrics import Estimate, mean_interval
from boneage_cli.core.overwriting import check_table_output
from boneage_cli.core.runs import OUT_OF_FOLD, PREDICTIONS, RUN_RECORD, SEX_PREDICTIONS, VALIDATION
from boneage_cli.core.summary import SUMMARY
from boneage_cli.core.sweep_folder import TABLE, TABLE_MARKDOWN, read_sweep
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import behind_link, explaining_write_errors

# Months by which the known age of one radiograph may differ between two tables, by rounding.
_SAME_AGE = 0.01
# Headings by which a table of an earlier comparison is recognised.
_FIRST_COLUMNS = "model,trainings,group,"


@dataclass(frozen=True)
class Compared:
    """One compared model, or several trainings of it.

    Attributes:
        paths: The paths of its trainings.
        images: Number of radiographs that all models have predicted.
        error: Mean absolute error in months, or share of wrong sexes, over these radiographs and
            all trainings.
        spread: Standard deviation of the error over the trainings; None for a single one.
        against_first: The error minus that of the first model, paired, with its 95 % bootstrap
            interval over radiographs; None for the first.
        groups: The same difference by sex and by band of known age, with the number of radiographs.
    """

    paths: tuple[Path, ...]
    images: int
    error: Estimate
    spread: float | None
    against_first: Estimate | None
    groups: dict[str, tuple[int, Estimate]]

    @property
    def name(self) -> str:
        """The paths, with commas between them."""
        return ", ".join(map(str, self.paths))


@dataclass(frozen=True)
class Comparison:
    """Models compared on the same radiographs.

    Attributes:
        of_ages: Whether errors are in months; otherwise they are shares of wrong sexes.
        models: The models; the others are compared with the first.
    """

    of_ages: bool
    models: list[Compared]

    def to_table(self) -> pd.DataFrame:
        """Returns a row per model and group, ``all`` first, with interval ends in columns."""
        rows: list[dict[str, Any]] = []
        for model in self.models:
            about = {"model": model.name, "trainings": len(model.paths)}
            own = model.error.columns("error") | {"spread": model.spread}
            first = model.against_first
            rows.append(
                about
                | {"group": "all", "images": model.images}
                | own
                | (first.columns("against_first") if first else {})
            )
            for group, (images, difference) in model.groups.items():
                apart = difference.columns("against_first")
                rows.append(about | {"group": group, "images": images} | apart)
        return pd.DataFrame(rows)


def compare(models: Sequence[Sequence[Path]]) -> Comparison:
    """Compares models by the tables of predictions that training and evaluation wrote.

    Args:
        models: For each model its trainings: run folders, folders of a cross-validation, folders
            of an evaluation, or tables of predictions. A single folder of a sweep stands for each
            of its runs. The others are compared with the first.

    Raises:
        BoneageError: There is no such table, fewer than two models are named, they predict
            different targets or have no radiograph in common, or the tables contradict each other
            on a known age.
    """
    # Tables beside run folders, which the shell names for runs/*, too.
    models = [each for each in models if not all(map(_is_table_of_runs, each))]
    models = [model for trainings in models for model in _models_of(trainings)]
    if len(models) < 2:
        raise BoneageError("name two models to compare, or more: boneage compare RUN_A RUN_B")
    tables = [[_errors_at(path) for path in trainings] for trainings in models]
    kinds = {of_ages for trainings in tables for of_ages, _ in trainings}
    if len(kinds) > 1:
        raise BoneageError("one predicts ages and another sexes; compare models of one kind")
    (of_ages,) = kinds
    common = _common([table for trainings in tables for _, table in trainings])
    known = tables[0][0][1].loc[common]
    groups = _groups(known)
    first = _mean_errors([table for _, table in tables[0]], common)
    compared = []
    for number, (trainings, found) in enumerate(zip(models, tables, strict=True)):
        errors = _mean_errors([table for _, table in found], common)
        means = [float(table.loc[common, "error"].mean()) for _, table in found]
        apart = errors - first
        compared.append(
            Compared(
                paths=tuple(trainings),
                images=len(common),
                error=mean_interval(errors),
                spread=float(np.std(means, ddof=1)) if len(means) > 1 else None,
                against_first=mean_interval(apart) if number else None,
                groups={
                    name: (int(rows.sum()), mean_interval(apart[rows]))
                    for name, rows in groups.items()
                    if number and rows.any()
                },
            )
        )
    return Comparison(of_ages, compared)


def _models_of(trainings: Sequence[Path]) -> list[Sequence[Path]]:
    """Returns the runs of a sweep, each a model; other trainings are of one model."""
    folder = next((path for path in trainings if _table_at(path) is None), trainings[0])
    table = None if _table_at(folder) else read_sweep(folder)
    if table is None:
        return [trainings]
    if len(trainings) > 1:
        raise BoneageError(
            f"{folder}: is a sweep, whose runs are different models; name it without commas"
        )
    failed = table[table["error"].notna()]
    for name, reason in zip(failed["run"], failed["error"], strict=True):
        warnings.warn(f"{folder / name}: left out: {reason}", BoneageWarning, stacklevel=3)
    finished = table.loc[table["error"].isna(), "run"]
    if finished.empty:
        raise BoneageError(f"{folder}: no run of this sweep is finished; run it again")
    return [[folder / name] for name in finished]


def paired_difference(run: Path, first: Path) -> Estimate | None:
    """Returns a run's mean error minus another's, as ``Compared.against_first``.

    None for the same run, and if they predicted different targets or radiographs.
    """
    if run == first:
        return None
    try:
        (of_ages, own), (of_ages_too, other) = _errors_at(run), _errors_at(first)
    except BoneageError:
        return None
    if of_ages != of_ages_too or set(own.index) != set(other.index):
        return None
    return mean_interval((own["error"] - other["error"].reindex(own.index)).to_numpy(float))


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Writes the comparison as a CSV table.

    Raises:
        BoneageError: The file cannot be written, or is there and holds something else, such as one
            of the tables that were compared.
    """
    check_table_output(path, _FIRST_COLUMNS)
    with explaining_write_errors(path):
        write_csv(comparison.to_table(), behind_link(path))


def _errors_at(path: Path) -> tuple[bool, pd.DataFrame]:
    """Reads errors by radiograph, see ``_read_errors``."""
    file = _table_at(path)
    if file is None and (path / RUN_RECORD).is_file():
        raise BoneageError(
            f"{path}: its training is not finished; finish with: boneage train --resume {path}"
        )
    if file is None:
        raise BoneageError(
            f"{path}: no {PREDICTIONS} there; name a run folder, the folder of a sweep, a folder "
            "that evaluate wrote, or such a table"
        )
    try:
        return _read_errors(file)
    except (ValueError, KeyError):
        raise BoneageError(
            f"{file}: not a table of predictions that train or evaluate wrote"
        ) from None


def _is_table_of_runs(path: Path) -> bool:
    named = path.name in (SUMMARY, TABLE, TABLE_MARKDOWN) and path.is_file()
    return named and any(path.parent.glob(f"*/{RUN_RECORD}"))


def _table_at(path: Path) -> Path | None:
    """Returns the table of predictions at a path; None if there is none."""
    if path.is_file() and path.suffix == ".csv":
        return path
    folder = path.parent if path.is_file() else path
    places = (folder, folder / OUT_OF_FOLD, folder / VALIDATION)
    files = (place / name for place in places for name in (PREDICTIONS, SEX_PREDICTIONS))
    return next((file for file in files if file.is_file()), None)


def _read_errors(file: Path) -> tuple[bool, pd.DataFrame]:
    """Reads whether errors are of ages, and by radiograph ``error``, ``age`` (months) and ``sex``.

    An error is in months, or 1 for a wrong sex and 0 for a right one.
    """
    table = read_prediction_table(file)
    of_ages = "absolute_error" in table
    if of_ages:
        error, age = table["absolute_error"], table["true"]
    else:
        wrong = (table["predicted_sex"] != table["sex"]).astype(float)
        error, age = wrong.where(table["predicted_sex"].notna()), table["boneage"]
    errors = pd.DataFrame({"error": error, "age": age, "sex": table["sex"]})
    # A radiograph may be in a data set twice.
    by_image = errors.dropna(subset=["error"]).groupby(table["image_id"])
    return of_ages, by_image.agg({"error": "mean", "age": "mean", "sex": "first"})


def _common(tables: Sequence[pd.DataFrame]) -> pd.Index:
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    if common.empty:
        raise BoneageError("the models have no radiograph in common; evaluate them on one data set")
    for table in tables[1:]:
        apart = (table.loc[common, "age"] - tables[0].loc[common, "age"]).abs() > _SAME_AGE
        if apart.any():
            raise BoneageError(
                f"radiograph {common[apart][0]} has different known ages in the tables: they "
                "are of different data or label versions"
            )
    most = max(len(table) for table in tables)
    if len(common) < most:
        warnings.warn(
            f"compared on the {len(common):,} radiographs that all have predicted, of up to "
            f"{most:,}",
            BoneageWarning,
            stacklevel=3,
        )
    return common


def _mean_errors(tables: Sequence[pd.DataFrame], common: pd.Index) -> np.ndarray:
    return np.mean([table.loc[common, "error"].to_numpy(float) for table in tables], axis=0)


def _groups(known: pd.DataFrame) -> dict[str, np.ndarray]:
    sex = known["sex"].to_numpy()
    by_age = dict(age_groups(known["age"].to_numpy(float)))
    return {"girls": sex == "F", "boys": sex == "M", **by_age}
