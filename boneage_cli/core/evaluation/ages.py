"""Evaluation of predicted ages: over all radiographs, by sex and by age."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.ages import YEARS_AT_MOST
from boneage_cli.core.evaluation.grouped_metrics import (
    GroupedMetrics,
    age_groups,
    grouped,
    none_predicted,
    nothing_known,
)
from boneage_cli.core.evaluation.metrics import INTERVAL, Estimate, Metrics, compute_metrics
from boneage_cli.core.prediction.output import DECIMALS
from boneage_cli.core.runs import PREDICTIONS
from boneage_cli.csv_files import write_csv
from boneage_cli.datasets.manifest import sex_letters, warn_of_impossible_ages
from boneage_cli.errors import BoneageWarning
from boneage_cli.json_files import write_json

AGE_FILES = ("metrics.json", PREDICTIONS, "scatter.png", "bland_altman.png")

PREDICTION_COLUMNS = ("image_id", "true", "predicted", "absolute_error", "sex", "error")


@dataclass(frozen=True)
class Evaluation(GroupedMetrics[Metrics]):
    """The evaluation of a model on radiographs of known age; see ``GroupedMetrics``.

    ``predictions`` has ``PREDICTION_COLUMNS``: ages in months, sex as M or F.

    Attributes:
        baseline: The age that a model that ignores the image predicts for every child, months.
        baseline_mae: The mean absolute error of this baseline on these radiographs, months.
    """

    answer = "predicted"

    baseline_mae: float = field(kw_only=True)

    @property
    def mae(self) -> Estimate:
        """Mean absolute error over all radiographs, months."""
        return self.overall.mae

    @property
    def rmse(self) -> float:
        """Root of the mean square error over all radiographs, months."""
        return self.overall.rmse

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of metrics.json, ages in months."""
        figures = self.as_json(Metrics.to_dict)
        return figures | {"baseline_mae": self.baseline_mae, "interval": INTERVAL}


def labelled_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of a manifest that have a known age, with a new index.

    Raises:
        BoneageError: There are none.
    """
    labelled = manifest[np.isfinite(manifest["boneage"])].reset_index(drop=True)
    if labelled.empty:
        raise nothing_known("bone age")
    warn_of_impossible_ages(labelled)
    return labelled


def evaluate_predictions(
    manifest: pd.DataFrame,
    months: np.ndarray,
    *,
    errors: Sequence[str | None] | None = None,
    baseline: float | None = None,
    unlabelled: int = 0,
    refused: Mapping[str, int] | None = None,
    about: dict[str, Any] | None = None,
) -> Evaluation:
    """Compares predicted with known ages.

    Args:
        manifest: n rows with id, boneage (months, known) and male.
        months: Predicted ages, shape (n,); NaN where a radiograph failed.
        errors: Why each of the n radiographs failed, None where it did not.
        baseline: Mean age of the training radiographs in months; None for that of the rows.
        unlabelled: As in ``GroupedMetrics``.
        refused: As in ``GroupedMetrics``.
        about: As in ``GroupedMetrics``.

    Raises:
        BoneageError: No age was predicted.
    """
    predictions = _prediction_table(manifest, np.asarray(months, float), errors)
    done = predictions[predictions["predicted"].notna()]
    if done.empty:
        raise none_predicted(len(predictions), predictions["error"].dropna())
    true, predicted = done["true"].to_numpy(float), done["predicted"].to_numpy(float)
    age = float(true.mean()) if baseline is None else baseline
    if look_like_years(true, predicted):
        warnings.warn(
            f"known ages from {true.min():g} to {true.max():g} look like years, but months are "
            "expected: the errors below are meaningless",
            BoneageWarning,
            stacklevel=2,
        )

    def compute(rows: np.ndarray) -> Metrics:
        return compute_metrics(true[rows], predicted[rows])

    sex = done["sex"].to_numpy()
    return Evaluation(
        predictions=predictions,
        overall=compute_metrics(true, predicted),
        by_sex=grouped((("girls", sex == "F"), ("boys", sex == "M")), compute),
        by_age=grouped(age_groups(true), compute),
        baseline=age,
        baseline_mae=float(np.abs(true - age).mean()),
        unlabelled=unlabelled,
        refused=None if refused is None else dict(refused),
        about=dict(about or {}),
    )


def look_like_years(known: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether known ages are so small, compared with predicted ones, that they must be years.

    Args:
        known: Ages that should be months, (n,), n at least 1.
        predicted: Months, (n,). For infants they are small, too, so that no error is assumed.
    """
    return bool(known.max() <= YEARS_AT_MOST and predicted.mean() > 4 * known.mean())


def read_prediction_table(path: Path) -> pd.DataFrame:
    """Reads a table of predicted ages or sexes that an evaluation wrote.

    Raises:
        ValueError: It is no CSV table, or a column of numbers has other cells.
    """
    words = dict.fromkeys(("image_id", "sex", "predicted_sex", "error"), str)
    numbers = ("true", "predicted", "absolute_error", "boneage", "male_probability")
    types = {**words, **dict.fromkeys(numbers, float)}
    # A radiograph may be called NA.
    return pd.read_csv(
        path,
        dtype=types,
        keep_default_na=False,
        na_values=[""],
        encoding_errors="surrogateescape",
    )


def write_evaluation(evaluation: Evaluation, folder: Path, title: str = "") -> list[Path]:
    """Writes metrics.json, predictions.csv, scatter.png and bland_altman.png.

    Args:
        evaluation: The evaluation.
        folder: The output folder; it is made if it is missing.
        title: The title of both plots.

    Returns:
        The four files.

    Raises:
        OSError: The folder cannot be written.
    """
    # Imported here because matplotlib, which plots need, is not needed for metrics.
    from boneage_cli.core.plots.ages import bland_altman, scatter

    done = evaluation.predictions[evaluation.predictions["predicted"].notna()]
    true, predicted = done["true"].to_numpy(float), done["predicted"].to_numpy(float)
    male = None if done["sex"].isna().any() else (done["sex"] == "M").to_numpy(bool)
    files = [folder / name for name in AGE_FILES]
    write_json(evaluation.to_dict(), files[0])
    write_csv(evaluation.predictions.round(DECIMALS), files[1])
    scatter(true, predicted, files[2], title, male=male)
    bland_altman(true, predicted, files[3], title)
    return files


def _prediction_table(
    manifest: pd.DataFrame, months: np.ndarray, errors: Sequence[str | None] | None
) -> pd.DataFrame:
    known = manifest["boneage"].to_numpy(float)
    columns = (
        manifest["id"].tolist(),
        known,
        months,
        np.abs(months - known),
        sex_letters(manifest),
        [None] * len(known) if errors is None else list(errors),
    )
    return pd.DataFrame(dict(zip(PREDICTION_COLUMNS, columns, strict=True)))
