"""Finds radiographs that are in both the training and the evaluation data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.ages import read_prediction_table
from boneage_cli.core.run_record import RunRecord
from boneage_cli.core.runs import OUT_OF_FOLD, PREDICTIONS, RECORD, SEX_PREDICTIONS, VALIDATION
from boneage_cli.datasets.manifest import read_manifest, sex_letters
from boneage_cli.errors import BoneageError


def count_trained_on(path: Path, manifest: pd.DataFrame) -> int:
    """Counts the radiographs on which a run, or any model of a cross-validation, was trained.

    Args:
        path: A run, a cross-validation or one of its models, see ``bundles_at``. The whole train
            split counts even if the run used a part of it (data.train_images).
        manifest: The radiographs. They match by id and age, or sex if the age is unknown, because
            other data sets may use the same ids.
    """
    folder = path if path.is_dir() else path.parent
    seen = _seen(folder / OUT_OF_FOLD)
    if seen.empty:
        # A single model was not trained on its validation radiographs.
        held_out = _seen(folder / VALIDATION).index
        seen = _seen(folder.parent / OUT_OF_FOLD) if (folder / RECORD).exists() else seen
        seen = (_train_split(folder) if seen.empty else seen).drop(held_out, errors="ignore")
    here = pd.DataFrame(
        {
            "age": manifest["boneage"].to_numpy(float),
            "sex": sex_letters(manifest),
        },
        index=manifest["id"].astype(str),
    )
    # An id that occurs several times in the training data counts once.
    both = here.add_suffix("_here").join(seen[~seen.index.duplicated()], how="inner")
    apart = (both["age"] - both["age_here"]).abs()
    same_sex = apart.isna() & (both["sex"] == both["sex_here"])
    return int((apart.lt(0.01) | same_sex).sum())


def is_trained_on(run: Path, data: str | Path) -> bool:
    """Whether a run, or a cross-validation, was trained on this data set."""
    try:
        return RunRecord.read(run).data.resolve() == Path(data).resolve()
    except BoneageError:
        return False


def _train_split(run: Path) -> pd.DataFrame:
    """Reads age and sex by id of a run's train split; an empty table if it is not available."""
    try:
        manifest = read_manifest(RunRecord.read(run).data, "train")
    except BoneageError:
        return _none_seen()
    ages, sexes = manifest["boneage"].to_numpy(float), sex_letters(manifest)
    return pd.DataFrame({"age": ages, "sex": sexes}, index=manifest["id"].astype(str))


def _none_seen() -> pd.DataFrame:
    return pd.DataFrame({"age": np.empty(0), "sex": []}, index=pd.Index([], dtype=str))


def _seen(folder: Path) -> pd.DataFrame:
    """Reads age and sex by id from a folder's table of predictions; empty if there is none."""
    for name, age in ((PREDICTIONS, "true"), (SEX_PREDICTIONS, "boneage")):
        try:
            table = read_prediction_table(folder / name).set_index("image_id")
            return table[[age, "sex"]].set_axis(["age", "sex"], axis=1)
        except (OSError, KeyError, ValueError):
            continue
    return _none_seen()
