"""Splits of radiographs stratified by sex and age.

Radiographs are sorted by sex and bone age, and each short run of neighbours in that order is
distributed over the parts at random. If patients are known, a patient's radiographs stay together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted


class Fold(NamedTuple):
    """A held-out fold: the model evaluated on it was trained on the other folds.

    Attributes:
        number: Number of the fold, from 1.
        of: Number of folds.
    """

    number: int
    of: int


def set_aside(manifest: pd.DataFrame, fraction: float, seed: int) -> pd.Series:
    """Chooses a fraction of the radiographs, stratified by sex and age.

    Args:
        manifest: Rows with ``id``, ``boneage`` (months), ``male`` and optionally ``patient``.
        fraction: The fraction of radiographs (of patients, if known), 0 to 0.5.
        seed: Random seed; the choice does not depend on the order of the rows.

    Returns:
        True for each chosen row, with the manifest's index.

    Raises:
        BoneageError: The fraction is out of range.
    """
    if not 0 <= fraction <= 0.5:
        raise BoneageError(f"validation fraction {fraction}: choose one from 0 to 0.5")
    rng = np.random.default_rng(seed)
    units = _in_order_of_sex_and_age(manifest, rng)
    count = round(fraction * len(units))
    if fraction > 0 and len(units) > 1:
        count = max(count, 1)
    if count == 0:
        return pd.Series(False, index=manifest.index)
    edges = np.arange(count + 1) * len(units) // count
    chosen = units[rng.integers(edges[:-1], edges[1:])]
    return _unit_names(manifest).isin(set(chosen))


def choose(manifest: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Chooses a number of radiographs, stratified by sex and age, in the manifest's order.

    Args:
        manifest: Rows with ``id``, ``boneage`` (months) and ``male``.
        count: Number of radiographs, each id once. Choices of different sizes are not nested, even
            with the same seed.
        seed: Random seed; the choice does not depend on the order of the rows.

    Raises:
        BoneageError: There are fewer radiographs, or ``count`` is below 1.
    """
    once = manifest.drop_duplicates("id")
    if not 1 <= count <= len(once):
        raise BoneageError(
            f"{count} of {len(once)} radiographs (data.train_images, data.validation_images or "
            f"--sample): "
            f"choose 1 to {len(once)}"
        )
    rng = np.random.default_rng(seed)
    ids = _in_order_of_sex_and_age(once.drop(columns="patient", errors="ignore"), rng)
    edges = np.arange(count + 1) * len(ids) // count
    chosen = set(ids[rng.integers(edges[:-1], edges[1:])])
    return once[("radiograph " + once["id"].astype(str)).isin(chosen)]


def assign_folds(manifest: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Assigns radiographs to folds for cross-validation, stratified by sex and age.

    Args:
        manifest: Rows with ``id``, ``boneage`` (months), ``male`` and optionally ``patient``.
        folds: The number of folds, at least 2.
        seed: Random seed; the folds do not depend on the order of the rows.

    Returns:
        The fold of each row, 0 to ``folds`` − 1, with the manifest's index.

    Raises:
        BoneageError: There are fewer radiographs (patients, if known) than folds.
    """
    rng = np.random.default_rng(seed)
    units = _in_order_of_sex_and_age(manifest, rng)
    if not 2 <= folds <= len(units):
        possible = f"choose 2 to {len(units)}" if len(units) > 1 else "more are needed"
        raise BoneageError(f"{folds} folds of {counted(len(units), 'radiograph')}: {possible}")
    runs = -(-len(units) // folds)
    dealt = rng.permuted(np.tile(np.arange(folds), (runs, 1)), axis=1).ravel()[: len(units)]
    return _unit_names(manifest).map(dict(zip(units, dealt, strict=True))).astype(int)


def _unit_names(manifest: pd.DataFrame) -> pd.Series:
    """Names the unit that is never divided: the patient if known, else the radiograph."""
    radiographs = "radiograph " + manifest["id"].astype(str)
    if "patient" not in manifest:
        return radiographs
    patients = manifest["patient"]
    return radiographs.where(patients.isna(), "patient " + patients.astype(str))


def _in_order_of_sex_and_age(manifest: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    rows = pd.DataFrame(
        {
            "unit": _unit_names(manifest),
            "sex": manifest["male"].astype("boolean").astype("Int8").fillna(2),
            "age": manifest["boneage"].astype(float),
        }
    )
    units = rows.groupby("unit", sort=True).agg({"sex": "min", "age": "mean"})
    # Many ages are equal (those of the atlas plates); within one age the order is random.
    units["drawn"] = rng.random(len(units))
    return units.sort_values(["sex", "age", "drawn"]).index.to_numpy()
