"""Evaluation of a model on radiographs with known age, known sex or both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.ages import (
    AGE_FILES,
    Evaluation,
    evaluate_predictions,
    write_evaluation,
)
from boneage_cli.core.evaluation.grouped_metrics import nothing_known
from boneage_cli.core.evaluation.metrics_folder import remove_evaluation
from boneage_cli.core.evaluation.sexes import (
    SEX_FILES,
    SexEvaluation,
    evaluate_sexes,
    write_sex_evaluation,
)
from boneage_cli.core.prediction.cases import Prediction, manifest_cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.run_record import is_trained_on
from boneage_cli.core.runs import run_of
from boneage_cli.core.summary import add_test_metrics
from boneage_cli.datasets.manifest import warn_of_impossible_ages
from boneage_cli.progress import track


@dataclass(frozen=True)
class Measured:
    """The metrics of a model; at least one of ``ages`` and ``sexes`` is present.

    Attributes:
        ages: Metrics of bone ages; None if it predicts none, or none is known.
        sexes: Metrics of the sex; None if it does not predict it, or none is known.
        failures: The errors of the radiographs that could not be predicted.
    """

    ages: Evaluation | None
    sexes: SexEvaluation | None
    failures: list[str] = field(default_factory=list)

    def to_result(self) -> dict[str, Any]:
        """Returns the metrics by field of ``RunResult``; None for those that were not measured."""
        ages, sexes = self.ages, self.sexes
        return {
            "validation_mae": ages.mae if ages else None,
            "baseline_mae": ages.baseline_mae if ages else None,
            "validation_sex_accuracy": sexes.accuracy if sexes else None,
            "baseline_sex_accuracy": sexes.baseline if sexes else None,
        }

    @property
    def about(self) -> dict[str, Any]:
        """What identifies the model and the data."""
        return next(each.about for each in (self.ages, self.sexes) if each is not None)


def measure(
    predictor: Predictor,
    manifest: pd.DataFrame,
    *,
    baseline: float | None = None,
    boys_in_training: float | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    tta: bool = False,
    processes: bool = False,
    about: dict[str, Any] | None = None,
) -> Measured:
    """Predicts the labelled radiographs of a manifest and compares with their labels.

    Args:
        predictor: The model.
        manifest: Rows as ``read_manifest`` gives them.
        baseline: Mean age of the training radiographs in months; None for the mean of the rows.
        boys_in_training: Share of boys among them; None for the share in the rows.
        batch_size: Radiographs per pass of the network.
        workers: Reader threads or worker processes; None for one per core.
        tta: Whether to average over several views of each radiograph.
        processes: Whether worker processes may be used, see ``predict_files``.
        about: What identifies the model and the data.

    Raises:
        BoneageError: No row has a label of what the model predicts, or no radiograph could be
            predicted.
    """
    aged = np.isfinite(manifest["boneage"].to_numpy(float)) & predictor.predicts_age
    sexed = manifest["male"].notna().to_numpy(bool) & predictor.predicts_sex
    asked = aged | sexed
    if not asked.any():
        raise nothing_known("bone age" if predictor.predicts_age else "sex")
    rows = manifest[asked].reset_index(drop=True)
    with_age, with_sex = aged[asked], sexed[asked]
    warn_of_impossible_ages(rows[with_age])
    found = predictor.predict_files(
        manifest_cases(rows),
        batch_size=batch_size,
        workers=workers,
        tta=tta,
        force=True,
        processes=processes,
    )
    results = list(track(found, description="predict", total=len(rows)))
    # DICOM files may contain a sex that the labels lack.
    known = pd.array([result.known_male for result in results], dtype="boolean")
    rows["male"] = rows["male"].astype("boolean").fillna(pd.Series(known))
    months = _numbers([result.months for result in results])
    probabilities = _numbers([result.male_probability for result in results])
    errors = np.array([result.error for result in results], object)
    ages = sexes = None
    if with_age.any():
        ages = evaluate_predictions(
            rows[with_age],
            months[with_age],
            errors=errors[with_age].tolist(),
            refused=_refused(results, with_age),
            baseline=baseline,
            unlabelled=len(manifest) - int(with_age.sum()),
            about=about,
        )
    if with_sex.any():
        sexes = evaluate_sexes(
            rows[with_sex],
            probabilities[with_sex],
            errors=errors[with_sex].tolist(),
            refused=_refused(results, with_sex),
            boys_in_training=boys_in_training,
            unlabelled=len(manifest) - int(with_sex.sum()),
            about=about,
        )
    failures = [result.complaint for result in results if result.complaint is not None]
    return Measured(ages, sexes, failures)


def write_measured(measured: Measured, folder: Path, title: str = "") -> list[Path]:
    """Writes the files of ``write_evaluation``, those of ``write_sex_evaluation``, or both.

    If ages (or sexes) were not evaluated now, the files of an earlier evaluation are deleted: they
    may be of another model or other radiographs.

    Args:
        measured: The metrics.
        folder: The folder; it is created if missing.
        title: Title of the plots.

    Returns:
        The files that were written.

    Raises:
        OSError: The folder cannot be written.
    """
    files = []
    if measured.ages is not None:
        files += write_evaluation(measured.ages, folder, title)
    if measured.sexes is not None:
        files += write_sex_evaluation(measured.sexes, folder, title)
    for evaluation, names in ((measured.ages, AGE_FILES), (measured.sexes, SEX_FILES)):
        if evaluation is None:
            remove_evaluation(folder, names)
    return files


def note_test_metrics(measured: Measured) -> tuple[Path, list[str]] | None:
    """Fills the test metrics into the run's row of ``summary.csv``, as HDA_Project does.

    Only metrics of the whole test split of the run's own data set, without failures and without
    test-time augmentation, are filled in.

    Args:
        measured: The metrics; ``about`` contains ``model``, ``data``, ``split``, ``chosen_of``,
            ``label_version`` and ``tta``.

    Returns:
        The table and the columns of the metrics; None if there is no such row, or these are not
        such metrics.
    """
    about = measured.about
    models = about["model"]
    whole = about["split"] == "test" and about["chosen_of"] is None and not about["tta"]
    run = run_of(Path(models[0])) if len(models) == 1 else None
    if not whole or measured.failures or run is None or not is_trained_on(run, about["data"]):
        return None
    ages, sexes = measured.ages, measured.sexes
    figures = {
        "test_mae": ages.mae.value if ages else None,
        "test_rmse": ages.rmse if ages else None,
        "test_sex_accuracy": sexes.accuracy.value if sexes else None,
    }
    known = [name for name, value in figures.items() if value is not None]
    images = [each.overall.images for each in (ages, sexes) if each]
    version = {"test_images": images[0], "test_label_version": about["label_version"]}
    table = add_test_metrics(run, figures | version)
    return None if table is None else (table, known)


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def _refused(results: list[Prediction], rows: np.ndarray) -> Counter[str]:
    chosen = zip(results, rows, strict=True)
    return Counter(result.refusal for result, counts in chosen if counts and result.refusal)
