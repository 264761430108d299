"""Selects the radiographs on which a model is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boneage_cli.datasets.find_dataset import find_dataset
from boneage_cli.datasets.label_version import label_version
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.splits import choose
from boneage_cli.errors import BoneageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LabelledSplit:
    """A split of a data set, or a sample of it.

    Attributes:
        folder: The data set's folder.
        split: The split's name.
        manifest: Its rows, or the chosen rows of a sample.
        label_version: See ``label_version.label_version``; None unless it is a test split.
        chosen_of: Number of labelled rows from which a sample was chosen; None without a sample.
        mean_training_age: Mean known age of the data set's train split in months; None if it has
            none.
        boys_in_training: Fraction of boys among its rows of known sex; None if it has none.
        of_other_sex: Number of rows left out because the model is for the other sex.
    """

    folder: Path
    split: str
    manifest: pd.DataFrame
    label_version: str | None
    chosen_of: int | None
    mean_training_age: float | None
    boys_in_training: float | None
    of_other_sex: int = 0

    @property
    def title(self) -> str:
        """Title of plots: the data set and the split."""
        return f"{self.folder.name}, {self.split}"

    @property
    def name(self) -> str:
        """Name of the folder of metrics: the split, with the size of a sample."""
        return self.split if self.chosen_of is None else f"{self.split}-{len(self.manifest)}"


def labelled_split(
    data: Path | None = None,
    split: str | None = None,
    sample: int | None = None,
    *,
    labels: Sequence[str] = ("boneage",),
    male: bool | None = None,
) -> LabelledSplit:
    """Finds the radiographs on which to evaluate a model.

    Args:
        data: A data set's folder or name, see ``find_dataset``.
        split: The split's name; None for test if that has labels, else validation.
        sample: Number of labelled radiographs to choose, stratified by sex and age with a fixed
            seed; None for all radiographs.
        labels: The label columns; a radiograph needs at least one of them.
        male: The sex that the model is for; None for both.

    Raises:
        BoneageError: There is no such data set or split, or it has fewer labels than ``sample``.
    """
    folder = find_dataset(data)
    split = split or _with_labels(folder, labels)
    manifest = read_manifest(folder, split)
    # From the whole split: a sample may lack the radiograph that identifies the version.
    version = label_version(manifest) if split.startswith("test") else None
    every, manifest = len(manifest), _of_sex(manifest, male)
    left_out = every - len(manifest)
    labelled = manifest[_is_labelled(manifest, labels)]
    if sample is not None:
        if sample > len(labelled):
            names = {"boneage": "a known age", "male": "a known sex"}
            what = " or ".join(names[label] for label in labels)
            raise BoneageError(
                f"--sample {sample}: the split has {len(labelled)} with {what}; ask for fewer"
            )
        manifest = choose(labelled, sample, seed=0)
    mean = boys = None
    if (folder / "train.csv").is_file():
        train = _of_sex(read_manifest(folder, "train"), male)
        ages = train["boneage"].to_numpy(float)
        ages = ages[np.isfinite(ages)]
        mean = float(ages.mean()) if len(ages) else None
        males = train["male"].dropna()
        boys = float(males.mean()) if len(males) else None
    return LabelledSplit(
        folder=folder,
        split=split,
        manifest=manifest,
        label_version=version,
        chosen_of=None if sample is None else len(labelled),
        mean_training_age=mean,
        boys_in_training=boys,
        of_other_sex=left_out,
    )


def _of_sex(manifest: pd.DataFrame, male: bool | None) -> pd.DataFrame:
    """Returns the rows of one sex and of unknown sex."""
    if male is None:
        return manifest
    return manifest[(manifest["male"] == male).fillna(True)].reset_index(drop=True)


def _with_labels(folder: Path, labels: Sequence[str]) -> str:
    there = (folder / "test.csv").is_file()
    is_test = there and _is_labelled(read_manifest(folder, "test"), labels).any()
    return "test" if is_test else "validation"


def _is_labelled(manifest: pd.DataFrame, labels: Sequence[str]) -> pd.Series[bool]:
    return manifest[list(labels)].notna().any(axis=1)
