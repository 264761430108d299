"""Recalibrates a model for a site: a linear correction per sex, kept only if it reduces errors.

Sites differ in readers, machines and children, so that a model's ages may have a constant or
proportional bias there. A line per sex, fitted to a small table of known ages, corrects it (as in
Bland & Altman 1999, on bias that grows with the value); cross-validation measures the gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.ages import OLDEST_BONE_AGE, is_bone_age
from boneage_cli.core.bundle import Bundle, load_as_one, save_bundle
from boneage_cli.core.evaluation.ages import look_like_years
from boneage_cli.core.evaluation.metrics import Estimate, mean_interval
from boneage_cli.core.fingerprints import all_of, fingerprints, is_among
from boneage_cli.core.intervals import LEAST_TO_CALIBRATE, Calibration, calibrate
from boneage_cli.core.overwriting import check_model_output
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.inputs import cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import bundles_at
from boneage_cli.datasets.names import image_stem
from boneage_cli.errors import BoneageError
from boneage_cli.files import behind_link, explaining_write_errors
from boneage_cli.progress import track
from boneage_cli.sexes import sex_letter
from boneage_cli.wording import counted

FEWEST = 20
"""Least number of radiographs of one sex to which a line is fitted."""

FOLDS = 10
"""Number of folds of the cross-validation."""

STEEPEST = 2.0
"""Largest slope of a correction; the least is its inverse. Others come of unsuitable readings."""

Line = tuple[float, float]
"""Offset in months, and slope."""


@dataclass(frozen=True)
class Recalibration:
    """A correction and its effect on a site's radiographs.

    Attributes:
        correction: Per sex (``F``, ``M``) the offset in months and the slope.
        images: Number of radiographs that it was fitted to.
        before: MAE of the uncorrected model, months.
        after: MAE with lines fitted to the other folds, months.
        gain: Before − after, paired, with its 95 % interval, months. A sex whose gain may be
            chance has no line and counts as 0.
        by_sex: Per sex of the readings their number, and the gain of a line, cross-validated; None
            if they are too few for one.
        skipped: Why radiographs were left out.
        lost_intervals: Whether the new model lost the prediction intervals of the old one, because
            a corrected sex has too few readings for them.
        written: The new bundle; None if the correction does not help.
    """

    correction: dict[str, Line]
    images: int
    before: Estimate
    after: Estimate
    gain: Estimate
    by_sex: dict[str, tuple[int, Estimate | None]]
    skipped: list[str]
    lost_intervals: bool
    written: Path | None


def recalibrate(model: Path, table: Path, output: Path, *, device: str = "auto") -> Recalibration:
    """Fits a line per sex and writes a new bundle with it if it reduces errors beyond chance.

    Args:
        model: The bundle, or a run's folder; see ``load_as_one``.
        table: CSV file of the site's radiographs, with known bone ages in months; those that the
            model was trained on are left out.
        output: The new bundle.
        device: The device of the network.

    Raises:
        BoneageError: There are too few radiographs of known age and sex, their ages look like
            years or hardly vary with the predicted ones, or the bundle already has a correction or
            predicts sex.
    """
    bundle = load_as_one(model)
    if bundle.correction:
        raise BoneageError(f"{model}: has a correction already; start from the bundle without it")
    check_model_output(output, [str(table), *map(str, bundles_at(model))])
    predictor = Predictor([bundle], device)
    predictor.check_age("recalibrate")
    if predictor.predicts_sex:
        raise BoneageError(
            f"{model}: also predicts the sex, but the correction needs the known sex; choose a "
            "model that predicts ages only"
        )
    readings, skipped = _readings(predictor, _once(list(cases([str(table)]))))
    counts = readings["sex"].value_counts()
    sexes = sorted(str(sex) for sex, count in counts.items() if count >= FEWEST)
    if not sexes:
        left_out = f"; left out {len(skipped)}, the first: {skipped[0]}" if skipped else ""
        raise BoneageError(
            f"{counted(len(readings), 'radiograph')} of known age and sex that could be predicted; "
            f"a correction needs {FEWEST} of a sex{left_out}"
        )
    held_out = _cross_validated(readings, sexes)
    errors = (readings["predicted"] - readings["true"]).abs()
    gains = errors - (held_out - readings["true"]).abs()
    # Tested per sex, so that a line without a gain is not kept because of the other sex's gain.
    by_sex = {sex: mean_interval(gains[readings["sex"] == sex].to_numpy()) for sex in sexes}
    sexes = [sex for sex in sexes if by_sex[sex].low > 0]
    helped = readings["sex"].isin(sexes)
    corrected = readings.assign(predicted=held_out.where(helped, readings["predicted"]))
    correction = fit_lines(readings, sexes)
    for sex, (_, slope) in correction.items():
        if not 1 / STEEPEST <= slope <= STEEPEST:
            raise BoneageError(
                f"known ages of sex {sex} rise by {slope:.2f} months per predicted month, not by "
                f"{1 / STEEPEST:g} to {STEEPEST:g}; check that they belong to these radiographs, "
                "and give more of various ages"
            )
    calibration = _calibration(bundle, corrected, sexes)
    result = Recalibration(
        correction=correction,
        images=len(readings),
        before=mean_interval(errors.to_numpy()),
        after=mean_interval((corrected["predicted"] - corrected["true"]).abs().to_numpy()),
        gain=mean_interval(gains.where(helped, 0.0).to_numpy()),
        by_sex={str(sex): (int(count), by_sex.get(str(sex))) for sex, count in counts.items()},
        skipped=skipped,
        lost_intervals=bundle.calibration is not None and calibration is None,
        written=None,
    )
    if not correction:
        return result
    figures = {
        "images": len(readings),
        "mae_before": result.before.value,
        "mae_after_cross_validated": result.after.value,
    }
    with explaining_write_errors(output):
        save_bundle(
            replace(
                bundle,
                correction=correction,
                calibration=calibration,
                metrics=bundle.metrics | {"recalibration": figures},
                trained_on=all_of([bundle.trained_on, fingerprints(_as_manifest(readings))]),
            ),
            behind_link(output),
        )
    return replace(result, written=output)


def _readings(predictor: Predictor, once: Sequence[Case]) -> tuple[pd.DataFrame, list[str]]:
    """Returns a row per radiograph, and why others have none.

    The columns are ``id``, ``male``, ``sex``, ``predicted`` and ``true`` (months).
    """
    found = track(predictor.predict_files(once), description="predict", total=len(once))
    skipped, rows = [], []
    for prediction in found:
        case, male = prediction.case, prediction.known_male
        if prediction.months is None:
            skipped.append(str(prediction.complaint))
        elif case.known is None or male is None:
            skipped.append(f"{case.path}: {'no known age' if case.known is None else 'no sex'}")
        elif not is_bone_age(case.known):
            skipped.append(
                f"{case.path}: {case.known:g} months is no bone age (0 to {OLDEST_BONE_AGE:g}); "
                "correct it"
            )
        else:
            identity = case.id or image_stem(case.path)
            rows.append((identity, male, sex_letter(male), prediction.months, case.known))
    table = pd.DataFrame(rows, columns=["id", "male", "sex", "predicted", "true"])
    trained_on = all_of([bundle.trained_on for bundle in predictor.bundles])
    if trained_on is not None:
        # The model's errors on them are too small.
        seen = is_among(_as_manifest(table), trained_on)
        skipped += [f"{name}: the model was trained on it" for name in table["id"][seen]]
        table = table[~seen].reset_index(drop=True)
    ages = table["true"]
    if len(table) and look_like_years(ages.to_numpy(), table["predicted"].to_numpy()):
        raise BoneageError(
            f"known ages from {ages.min():g} to {ages.max():g} look like years; give months"
        )
    return table, skipped


def _as_manifest(readings: pd.DataFrame) -> pd.DataFrame:
    return readings.rename(columns={"true": "boneage"})


def _once(listed: Sequence[Case]) -> list[Case]:
    """Merges repeated radiographs, with the mean reading, so that no two folds share one."""
    same: dict[tuple[Path, bool | None], list[Case]] = {}
    for case in listed:
        same.setdefault((Path(case.path).resolve(), case.male), []).append(case)
    merged = []
    for first, *others in same.values():
        readings = [each.known for each in (first, *others) if each.known is not None]
        known = sum(readings) / len(readings) if readings else None
        merged.append(replace(first, known=known) if others else first)
    return merged


def _calibration(bundle: Bundle, site: pd.DataFrame, sexes: Sequence[str]) -> Calibration | None:
    """Returns intervals from the site's errors for corrected sexes, the old ones for others.

    None if a sex would have no interval of its own: those of both sexes together are no longer
    valid.
    """
    old = bundle.calibration
    groups: dict[str, tuple[tuple[float | None, ...], int]] = {}
    if old is not None:
        groups |= {name: (old.widths[name], old.images[name]) for name in old.widths}
    groups = {name: found for name, found in groups.items() if name[0] in {"F", "M"} - set(sexes)}
    rows = site[site["sex"].isin(sexes)]
    if len(rows) >= LEAST_TO_CALIBRATE:
        new = calibrate(rows, "")
        groups |= {
            name: (new.widths[name], new.images[name]) for name in new.widths if name[0] in sexes
        }
    wanted = {"F", "M"} if bundle.experiment.data.sex == "both" else {bundle.experiment.data.sex}
    if not wanted <= set(groups):
        return None
    return Calibration(
        widths={name: widths for name, (widths, _) in groups.items()},
        images={name: images for name, (_, images) in groups.items()},
        source=f"{len(rows)} radiographs of a site, cross-validated",
    )


def fit_lines(table: pd.DataFrame, sexes: Iterable[str]) -> dict[str, Line]:
    """Fits a line from predicted to known age for each sex by least squares.

    Args:
        table: Rows with ``sex`` (F or M), ``predicted`` and ``true`` (months).
        sexes: The sexes to fit.
    """
    lines: dict[str, Line] = {}
    for sex in sexes:
        rows = table[table["sex"] == sex]
        slope, offset = np.polyfit(rows["predicted"], rows["true"], 1)
        lines[sex] = (float(offset), float(slope))
    return lines


def _cross_validated(table: pd.DataFrame, sexes: Iterable[str]) -> pd.Series:
    """Returns each row's age corrected by lines that were fitted without its fold."""
    # Each fold gets an equal share of each sex.
    shuffled = table.sample(frac=1, random_state=0).groupby("sex").cumcount() % FOLDS
    part = shuffled.reindex(table.index).to_numpy()
    ages = table["predicted"].to_numpy(float).copy()
    for number in range(FOLDS):
        for sex, (offset, slope) in fit_lines(table[part != number], sexes).items():
            rows = (part == number) & (table["sex"] == sex).to_numpy()
            ages[rows] = offset + slope * ages[rows]
    return pd.Series(ages, table.index)
