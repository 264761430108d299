"""Evaluation of predicted sexes: over all radiographs, by sex and by age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.grouped_metrics import (
    GroupedMetrics,
    age_groups,
    grouped,
    none_predicted,
)
from boneage_cli.core.evaluation.metrics import SHARE_INTERVAL, Estimate, share_interval
from boneage_cli.core.prediction.output import DECIMALS
from boneage_cli.core.runs import SEX_PREDICTIONS
from boneage_cli.csv_files import write_csv
from boneage_cli.json_files import write_json
from boneage_cli.sexes import says_boy, sex_letter

SEX_FILES = ("sex_metrics.json", SEX_PREDICTIONS, "sex.png")

SEX_COLUMNS = ("image_id", "sex", "predicted_sex", "male_probability", "boneage", "error")


@dataclass(frozen=True)
class SexMetrics:
    """The metrics of predicted sexes of one group of radiographs.

    Attributes:
        images: Number of radiographs.
        accuracy: Share of right sexes, 0 to 1.
        auc: Area under the receiver operating characteristic: how often a boy has a larger
            probability of being a boy than a girl; None if all are of one sex.
        brier: Mean square of probability − truth: 0 is perfect, predicting 0.5 for all gives 0.25.
    """

    images: int
    accuracy: Estimate
    auc: float | None
    brier: float


@dataclass(frozen=True)
class SexEvaluation(GroupedMetrics[SexMetrics]):
    """The evaluation of a model on radiographs of known sex; see ``GroupedMetrics``.

    ``predictions`` has ``SEX_COLUMNS``: sexes as M or F, bone age in months if it is known.

    Attributes:
        baseline: The accuracy of always predicting the more frequent sex of the training data.
    """

    answer = "predicted_sex"

    @property
    def accuracy(self) -> Estimate:
        """Share of right sexes over all radiographs."""
        return self.overall.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of sex_metrics.json."""
        return self.as_json(asdict) | {"interval": SHARE_INTERVAL}


def compute_sex_metrics(male: np.ndarray, probability: np.ndarray) -> SexMetrics:
    """Computes the metrics of predicted sexes.

    Args:
        male: Whether each child is a boy, (n,), n at least 1.
        probability: Predicted probability of a boy, (n,).
    """
    return SexMetrics(
        images=len(male),
        accuracy=share_interval(says_boy(probability) == male),
        auc=_area_under_curve(male, probability),
        brier=float(np.square(probability - male).mean()),
    )


def evaluate_sexes(
    manifest: pd.DataFrame,
    male_probability: np.ndarray,
    *,
    errors: Sequence[str | None] | None = None,
    boys_in_training: float | None = None,
    unlabelled: int = 0,
    refused: Mapping[str, int] | None = None,
    about: dict[str, Any] | None = None,
) -> SexEvaluation:
    """Compares predicted with known sexes.

    Args:
        manifest: n rows with id, male (known) and boneage (months).
        male_probability: Predicted probability of a boy, (n,); NaN where a radiograph failed.
        errors: Why each of the n radiographs failed, None where it did not.
        boys_in_training: Share of boys among the training radiographs; None for that of the rows.
        unlabelled: As in ``GroupedMetrics``.
        refused: As in ``GroupedMetrics``.
        about: As in ``GroupedMetrics``.

    Raises:
        BoneageError: No sex was predicted.
    """
    probability = np.asarray(male_probability, float)
    known = manifest["male"].to_numpy(bool)
    predictions = pd.DataFrame(
        {
            "image_id": manifest["id"].to_numpy(),
            "sex": list(map(sex_letter, known)),
            "predicted_sex": [
                None if np.isnan(each) else sex_letter(says_boy(each)) for each in probability
            ],
            "male_probability": probability,
            "boneage": manifest["boneage"].to_numpy(float),
            "error": [None] * len(known) if errors is None else list(errors),
        },
        columns=SEX_COLUMNS,
    )
    done = np.isfinite(probability)
    if not done.any():
        raise none_predicted(len(predictions), predictions["error"].dropna())
    male, found, ages = known[done], probability[done], predictions["boneage"].to_numpy()[done]
    boys = male.mean() if boys_in_training is None else boys_in_training

    def compute(rows: np.ndarray) -> SexMetrics:
        return compute_sex_metrics(male[rows], found[rows])

    return SexEvaluation(
        predictions=predictions,
        overall=compute_sex_metrics(male, found),
        by_sex=grouped((("girls", ~male), ("boys", male)), compute),
        by_age=grouped(age_groups(ages), compute),
        baseline=float((male == (boys > 0.5)).mean()),
        unlabelled=unlabelled,
        refused=None if refused is None else dict(refused),
        about=dict(about or {}),
    )


def write_sex_evaluation(evaluation: SexEvaluation, folder: Path, title: str = "") -> list[Path]:
    """Writes sex_metrics.json, sex_predictions.csv and sex.png.

    Args:
        evaluation: The evaluation.
        folder: The output folder; it is made if it is missing.
        title: The plot's title.

    Returns:
        The three files.

    Raises:
        OSError: The folder cannot be written.
    """
    # Imported here because matplotlib, which plots need, is not needed for metrics.
    from boneage_cli.core.plots.sexes import sexes

    done = evaluation.predictions[evaluation.predictions["predicted_sex"].notna()]
    files = [folder / name for name in SEX_FILES]
    write_json(evaluation.to_dict(), files[0])
    # With as few decimals as ages, many probabilities near 0 and 1 would become equal.
    decimals = {"boneage": DECIMALS, "male_probability": 9}
    write_csv(evaluation.predictions.round(decimals), files[1])
    sexes(
        (done["sex"] == "M").to_numpy(bool),
        done["male_probability"].to_numpy(float),
        files[2],
        title,
    )
    return files


def _area_under_curve(male: np.ndarray, probability: np.ndarray) -> float | None:
    """Computes the AUC from ranks (Hanley & McNeil, Radiology 1982;143:29–36); ties count half."""
    boys, girls = int(male.sum()), int((~male).sum())
    if not boys or not girls:
        return None
    ranks = pd.Series(probability).rank().to_numpy()
    return float((ranks[male].sum() - boys * (boys + 1) / 2) / (boys * girls))
