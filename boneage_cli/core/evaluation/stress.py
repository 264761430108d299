"""Stress test: the increase of a model's errors on perturbed copies of the radiographs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.ages import labelled_rows
from boneage_cli.core.evaluation.grouped_metrics import none_predicted
from boneage_cli.core.evaluation.metrics import INTERVAL, Estimate, mean_interval
from boneage_cli.core.prediction.cases import NO_NUMBER, Case, manifest_cases
from boneage_cli.core.prediction.output import DECIMALS
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.perturbation_catalogue import PERTURBATIONS, Perturbation
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.json_files import write_json
from boneage_cli.progress import track
from boneage_cli.threads import worker_threads

STRESS_FILES = ("stress.json", "stress.csv", "stress.png")
UNPERTURBED = Perturbation("unperturbed", "", "The radiographs as they are.", lambda image: image)

# Perturbed copies of one radiograph held in memory at a time. Larger batches are no faster on a
# CPU, and a copy of the largest image size that is read takes 200 MB.
_AT_ONCE = 8


@dataclass(frozen=True)
class StressRow:
    """The effect of one perturbation, in months unless stated otherwise.

    Attributes:
        name: Name of the perturbation.
        group: Group of the perturbation.
        what: One sentence that describes it.
        images: Number of radiographs compared.
        failed: Number of radiographs that could be predicted only unperturbed.
        refused: Number that ``predict`` would refuse; they are included in ``images``.
        unchanged: Number that the perturbation does not change, such as images that are already
            small; they are included in ``images``.
        mae: Mean absolute error on the perturbed radiographs.
        mae_increase: MAE on perturbed minus MAE on unperturbed radiographs, with the interval of
            the paired differences.
        change: Mean of |perturbed − unperturbed prediction|.
        shift: Mean of perturbed − unperturbed prediction: above zero, predictions become older.
    """

    name: str
    group: str
    what: str
    images: int
    failed: int
    refused: int
    unchanged: int
    mae: Estimate
    mae_increase: Estimate
    change: float
    shift: float


@dataclass(frozen=True)
class Stress:
    """The evaluation of a model on unperturbed and perturbed radiographs.

    Attributes:
        predictions: One row per labelled radiograph: ``image_id``, ``true``, and the predicted
            months in ``unperturbed`` and a column per perturbation, empty where it failed.
        rows: The metrics, ``unperturbed`` first. A perturbation under which all radiographs failed
            has none.
        errors: For each column in which a radiograph failed, the first reason.
        about: Description of the model and the data.
    """

    predictions: pd.DataFrame
    rows: list[StressRow]
    errors: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def unperturbed(self) -> StressRow:
        """The metrics on the unperturbed radiographs."""
        return self.rows[0]

    @property
    def perturbed(self) -> list[StressRow]:
        """The metrics of perturbations that changed at least one radiograph."""
        return [row for row in self.rows[1:] if row.unchanged < row.images]

    @property
    def failed(self) -> dict[str, int]:
        """Number of radiographs that failed only when perturbed, by perturbation, if any."""
        plain = self.predictions[UNPERTURBED.name].notna()
        counts = {name: int((plain & self.predictions[name].isna()).sum()) for name in self.errors}
        return {name: count for name, count in counts.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of stress.json, ages in months, ``about`` first."""
        return {
            **self.about,
            "interval": INTERVAL,
            "perturbations": [asdict(row) for row in self.rows],
            "errors": self.errors,
        }

    def to_table(self) -> pd.DataFrame:
        """Returns stress.csv: one row per perturbation, interval ends in columns."""
        table = []
        for row in self.rows:
            cells: dict[str, Any] = {}
            for entry in fields(row):
                value = getattr(row, entry.name)
                is_estimate = isinstance(value, Estimate)
                cells |= value.columns(entry.name) if is_estimate else {entry.name: value}
            table.append(cells)
        return pd.DataFrame(table)


def stress(
    predictor: Predictor,
    manifest: pd.DataFrame,
    *,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    batch_size: int = 32,
    workers: int | None = None,
    tta: bool = False,
    about: dict[str, Any] | None = None,
) -> Stress:
    """Predicts the labelled radiographs of a manifest, unperturbed and perturbed.

    Each radiograph is read once, and few perturbed copies of it are held at a time, so memory does
    not grow with the number of perturbations.

    Args:
        predictor: The model.
        manifest: Rows as ``read_manifest`` gives them.
        perturbations: The perturbations.
        batch_size: The most images per pass of the network.
        workers: Number of threads that perturb; None for one per core.
        tta: Whether to average over several views of each image.
        about: Description of the model and the data, for ``Stress.about``.

    Raises:
        BoneageError: No row has a known age, or no radiograph could be predicted unperturbed.
    """
    predictor.check_age("--stress")
    labelled = labelled_rows(manifest)
    names = [UNPERTURBED.name, *(perturbation.name for perturbation in perturbations)]
    months = np.full((len(labelled), len(names)), np.nan)
    unchanged = np.zeros((len(labelled), len(names)), bool)
    refused = np.zeros((len(labelled), len(names)), bool)
    errors: dict[str, str] = {}
    cases = track(manifest_cases(labelled), description="stress", total=len(labelled))
    with worker_threads(workers) as pool:
        for row, case in enumerate(cases):
            answers = _answers(predictor, case, perturbations, pool, min(batch_size, _AT_ONCE), tta)
            for column, answer in enumerate(answers):
                months[row, column] = answer.months
                unchanged[row, column] = answer.unchanged
                refused[row, column] = answer.refused
                if answer.error is not None:
                    errors.setdefault(names[column], answer.error)
    known = labelled["boneage"].to_numpy(float)
    if np.isnan(months[:, 0]).all():
        raise none_predicted(len(labelled), [errors[UNPERTURBED.name]])
    return Stress(
        predictions=pd.DataFrame(
            {
                "image_id": labelled["id"].to_numpy(),
                "true": known,
                **dict(zip(names, months.T, strict=True)),
            }
        ),
        rows=[
            _figures(
                perturbation,
                known,
                months[:, 0],
                months[:, column],
                unchanged[:, column],
                refused[:, column],
            )
            for column, perturbation in enumerate([UNPERTURBED, *perturbations])
            if np.isfinite(months[:, column]).any()
        ],
        errors=errors,
        about=dict(about or {}),
    )


def write_stress(stress: Stress, folder: Path, title: str = "") -> list[Path]:
    """Writes stress.json, stress.csv and stress.png.

    Args:
        stress: The stress test.
        folder: The output folder; it is made if it is missing.
        title: The plot's title.

    Returns:
        The three files.

    Raises:
        OSError: The folder cannot be written.
    """
    # Imported here because matplotlib, which plots need, is not needed for metrics.
    from boneage_cli.core.plots.stress import mae_increases

    files = [folder / name for name in STRESS_FILES]
    # Some values round to -0.0.
    write_csv(stress.to_table().round(DECIMALS).replace(-0.0, 0.0), files[1])
    write_json(stress.to_dict(), files[0])
    rows = stress.perturbed
    mae_increases(
        [row.name for row in rows],
        [row.group for row in rows],
        np.array(
            [(row.mae_increase.value, row.mae_increase.low, row.mae_increase.high) for row in rows]
        ),
        files[2],
        title,
        f"unperturbed MAE {stress.unperturbed.mae} months, n = {stress.unperturbed.images}",
    )
    return files


@dataclass(frozen=True)
class _Answer:
    months: float = math.nan
    unchanged: bool = False
    refused: bool = False
    error: str | None = None


def _answers(
    predictor: Predictor,
    case: Case,
    perturbations: Sequence[Perturbation],
    pool: ThreadPoolExecutor,
    at_once: int,
    tta: bool,
) -> Iterator[_Answer]:
    """Yields the prediction of a radiograph and then of each perturbed copy.

    Stops after the first one if the radiograph cannot be predicted unperturbed.
    """
    try:
        radiograph = case.read()
        (months,), (reason,) = predictor.answer([radiograph], [case.male], tta=tta)
    except BoneageError as error:
        yield _Answer(error=str(error))
        return
    first = _checked(months, reason, unchanged=True)
    yield first
    if first.error is not None:
        return

    def change(perturbation: Perturbation) -> Radiograph | BoneageError:
        try:
            return perturbation.change(radiograph)
        except BoneageError as error:
            return error

    for start in range(0, len(perturbations), at_once):
        images = list(pool.map(change, perturbations[start : start + at_once]))
        asked = [i for i in images if isinstance(i, Radiograph) and i is not radiograph]
        answers = zip(*predictor.answer(asked, [case.male] * len(asked), tta=tta), strict=True)
        for image in images:
            if isinstance(image, BoneageError):
                yield _Answer(error=str(image))
            elif image is radiograph:
                yield first
            else:
                yield _checked(*next(answers), unchanged=False)


def _checked(months: float, reason: str | None, *, unchanged: bool) -> _Answer:
    if math.isfinite(months):
        return _Answer(float(months), unchanged, refused=reason is not None)
    return _Answer(error=NO_NUMBER)


def _figures(
    perturbation: Perturbation,
    true: np.ndarray,
    plain: np.ndarray,
    perturbed: np.ndarray,
    unchanged: np.ndarray,
    refused: np.ndarray,
) -> StressRow:
    """Computes the metrics of one perturbation from ages in months and flags, each (n,)."""
    done = np.isfinite(perturbed)
    before, after = np.abs(plain - true)[done], np.abs(perturbed - true)[done]
    difference = (perturbed - plain)[done]
    return StressRow(
        name=perturbation.name,
        group=perturbation.group,
        what=perturbation.what,
        images=int(done.sum()),
        failed=int((np.isfinite(plain) & ~done).sum()),
        refused=int(refused.sum()),
        unchanged=int(unchanged.sum()),
        mae=mean_interval(after),
        # The bootstrap resamples paired differences, so that the difficulty of a radiograph, which
        # affects both errors, cancels out.
        mae_increase=mean_interval(after - before),
        change=float(np.abs(difference).mean()),
        shift=float(difference.mean()),
    )
