"""Which of the radiographs that a model is measured on it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.core.evaluation.ages import read_prediction_table
from boneage_cli.core.run_record import RunRecord
from boneage_cli.core.runs import OUT_OF_FOLD, PREDICTIONS, RECORD, SEX_PREDICTIONS, VALIDATION
from boneage_cli.datasets.manifest import read_manifest, sex_letters
from boneage_cli.errors import BoneageError


def trained_on(path: Path, manifest: pd.DataFrame) -> int:
    """How many radiographs a run was trained on, or some of a cross-validation's models were.

    Args:
        path: What names a run, all models of a cross-validation or one, see ``bundles_at``. Of a
            run that learnt from a part of its train split (data.train_images), all of it counts.
        manifest: The radiographs; another data set may have the same ids, but not their ages, or
            where those are unknown their sexes.
    """
    folder = path if path.is_dir() else path.parent
    seen = _seen(folder / OUT_OF_FOLD)
    if seen.empty:
        # Neither a run nor one model of many was trained on what it was measured on.
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
    # Each of these once, however often an id stood among those that were seen.
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
    """By id the known age and sex of a run's train split; none where that is not to be had."""
    try:
        manifest = read_manifest(RunRecord.read(run).data, "train")
    except BoneageError:
        return _none_seen()
    ages, sexes = manifest["boneage"].to_numpy(float), sex_letters(manifest)
    return pd.DataFrame({"age": ages, "sex": sexes}, index=manifest["id"].astype(str))


def _none_seen() -> pd.DataFrame:
    return pd.DataFrame({"age": np.empty(0), "sex": []}, index=pd.Index([], dtype=str))


def _seen(folder: Path) -> pd.DataFrame:
    """By id the known age and sex of the radiographs that a folder's figures are of."""
    for name, age in ((PREDICTIONS, "true"), (SEX_PREDICTIONS, "boneage")):
        try:
            table = read_prediction_table(folder / name).set_index("image_id")
            return table[[age, "sex"]].set_axis(["age", "sex"], axis=1)
        except (OSError, KeyError, ValueError):
            continue
    return _none_seen()
