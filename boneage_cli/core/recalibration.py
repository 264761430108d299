"""Fitting a model's ages to a site: a straight line per sex, kept only where it is seen to help.

Sites differ in their readers, their machines and their children, and a model's ages may be off by a
constant or a slope there. A line per sex from a small table of known ages mends that (as in Bland &
Altman 1999, on bias that grows with the value); whether it does is measured by cross-validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.cases import Case
from boneage_cli.core.evaluation import Estimate, mean_interval
from boneage_cli.core.intervals import LEAST, calibrate
from boneage_cli.core.prediction import Predictor
from boneage_cli.errors import BoneageError
from boneage_cli.progress import track

FEWEST = 20
"""Radiographs of one sex from which a line of its own is fitted."""

PARTS = 10
"""Parts of the cross-validation."""

Line = tuple[float, float]
"""Offset in months, and slope."""


@dataclass(frozen=True)
class Recalibration:
    """What a correction does on a site's radiographs.

    Attributes:
        correction: Per sex (``F``, ``M``) the offset in months and the slope.
        images: Radiographs that it was fitted on.
        before: MAE of the model as it was, months.
        after: MAE with lines fitted on the other parts, months.
        gain: Before − after, paired, with its 95 % interval, months.
        skipped: Why radiographs were left out.
        written: The new bundle; None where the correction does not help.
    """

    correction: dict[str, Line]
    images: int
    before: Estimate
    after: Estimate
    gain: Estimate
    skipped: list[str]
    written: Path | None


def recalibrate(
    model: Path, cases: Sequence[Case], output: Path, *, device: str = "auto", seed: int = 0
) -> Recalibration:
    """Fits a line per sex and writes a new bundle with it, if it helps beyond chance.

    Args:
        model: The bundle.
        cases: The site's radiographs with ``known`` ages in months.
        output: The new bundle.
        device: Where the network runs.
        seed: Of the parts of the cross-validation.

    Raises:
        BoneageError: There are too few radiographs of known age and sex, or the bundle has a
            correction already.
    """
    bundle = load_bundle(model)
    if bundle.correction:
        raise BoneageError(f"{model}: has a correction already; start from the bundle without it")
    found = list(
        track(
            Predictor([bundle], device).predict_files(cases),
            description="predict",
            total=len(cases),
        )
    )
    skipped, rows = [], []
    for prediction in found:
        case, male = prediction.case, prediction.male
        male = case.male if male is None else male
        if prediction.months is None:
            skipped.append(f"{case.path}: {prediction.error}")
        elif case.known is None or male is None:
            skipped.append(f"{case.path}: {'no known age' if case.known is None else 'no sex'}")
        else:
            rows.append(("M" if male else "F", prediction.months, case.known))
    table = pd.DataFrame(rows, columns=["sex", "predicted", "true"])
    counts = table["sex"].value_counts()
    sexes = sorted(str(sex) for sex, count in counts.items() if count >= FEWEST)
    if not sexes:
        raise BoneageError(
            f"{len(table)} radiographs of known age and sex; a correction needs {FEWEST} of a sex"
        )
    correction = fit_lines(table, sexes)
    held_out = _cross_validated(table, sexes, seed)
    errors = (table["predicted"] - table["true"]).abs().to_numpy()
    corrected = np.abs(held_out - table["true"].to_numpy(float))
    result = Recalibration(
        correction=correction,
        images=len(table),
        before=mean_interval(errors),
        after=mean_interval(corrected),
        gain=mean_interval(errors - corrected),
        skipped=skipped,
        written=None,
    )
    if result.gain.low <= 0:
        return result
    calibration = bundle.calibration
    if len(table) >= LEAST:
        source = f"{len(table)} radiographs of a site, cross-validated"
        calibration = calibrate(table.assign(predicted=held_out), source)
    figures = {
        "images": len(table),
        "mae_before": result.before.value,
        "mae_after_cross_validated": result.after.value,
    }
    save_bundle(
        replace(
            bundle,
            correction=correction,
            calibration=calibration,
            metrics=bundle.metrics | {"recalibration": figures},
        ),
        output,
    )
    return replace(result, written=output)


def fit_lines(table: pd.DataFrame, sexes: Iterable[str]) -> dict[str, Line]:
    """The line from predicted to known age of each sex, by least squares.

    Args:
        table: Rows with ``sex`` (F or M), ``predicted`` and ``true`` (months).
        sexes: The sexes that get a line; the ages of the others stay as they are.
    """
    lines: dict[str, Line] = {}
    for sex in sexes:
        rows = table[table["sex"] == sex]
        slope, offset = np.polyfit(rows["predicted"], rows["true"], 1)
        lines[sex] = (float(offset), float(slope))
    return lines


def _cross_validated(table: pd.DataFrame, sexes: Iterable[str], seed: int) -> np.ndarray:
    """Each row's age by lines that were fitted without it, (n,)."""
    # Equal shares of both sexes in every part.
    shuffled = table.sample(frac=1, random_state=seed).groupby("sex").cumcount() % PARTS
    part = shuffled.reindex(table.index).to_numpy()
    ages = table["predicted"].to_numpy(float).copy()
    for number in range(PARTS):
        for sex, (offset, slope) in fit_lines(table[part != number], sexes).items():
            rows = (part == number) & (table["sex"] == sex).to_numpy()
            ages[rows] = offset + slope * ages[rows]
    return ages
