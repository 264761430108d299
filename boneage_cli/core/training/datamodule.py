"""The Lightning data module: a data set's radiographs, rendered and cached."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from boneage_cli.ages import OLDEST_BONE_AGE, is_bone_age
from boneage_cli.core.cached_views import view_pixels
from boneage_cli.core.config import DataSettings, Experiment
from boneage_cli.core.training.batches import Batch, EpochBatches, RadiographBatches
from boneage_cli.core.views import Rendered, ViewRenderer, view_settings
from boneage_cli.datasets.cache import DIGESTS, content_digests
from boneage_cli.datasets.manifest import read_manifest, warn_of_years
from boneage_cli.datasets.splits import Fold, assign_folds, choose
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import explaining_write_errors
from boneage_cli.wording import counted

# Share of the GPU's free memory that may hold radiographs; the rest is for the network.
_SHARE_OF_GPU = 0.4
# Not training.seed: trainings that differ in it are compared on the same radiographs.
_SEED_OF_SUBSETS = 42


class BoneAgeData(pl.LightningDataModule):
    """The train and validation splits of a data set, cached as the network's input views.

    Args:
        folder: The data set's folder.
        experiment: The settings.
        cache: Folder of the image cache; None for ``.cache`` in the data set's folder.
        fold: The held-out fold of the pooled train and validation splits; None to validate on the
            validation split.

    Raises:
        BoneageError: The data set lacks a split, or a split has no usable row.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        cache: Path | None = None,
        fold: Fold | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.experiment = experiment
        self.cache = cache or folder / ".cache"
        self.renderer = ViewRenderer(view_settings(experiment))
        self.pool: pd.DataFrame | None = None
        self.places: dict[str, np.ndarray | None] = {"train": None, "validation": None}
        self.degraded = experiment.augmentation.share_degraded
        seed, needs_sex = experiment.training.seed, experiment.model.trains_with_sex
        if fold is None:
            train, validation = (
                usable(read_manifest(folder, split), experiment.data, needs_sex)
                for split in ("train", "validation")
            )
        else:
            everything = read_manifest(folder)
            self.pool = usable(
                everything[everything["split"] != "test"], experiment.data, needs_sex
            )
            held_out = assign_folds(self.pool, fold.of, seed) == fold.number - 1
            train, validation = self.pool[~held_out], self.pool[held_out]
        if experiment.data.train_images:
            train = choose(train, experiment.data.train_images, _SEED_OF_SUBSETS)
        if experiment.data.validation_images:
            if fold is not None:
                raise BoneageError(
                    "data.validation_images: --folds measures on all radiographs; leave it out"
                )
            validation = choose(validation, experiment.data.validation_images, _SEED_OF_SUBSETS)
        if fold is not None:
            # All folds share one cache.
            self.places = {
                "train": train.index.to_numpy(),
                "validation": validation.index.to_numpy(),
            }
        self.train_manifest = train.reset_index(drop=True)
        self.validation_manifest = validation.reset_index(drop=True)
        self.batches: dict[str, RadiographBatches] = {}
        self._moved: dict[int, Tensor] = {}

    def digest(self) -> str:
        """Returns a digest of the training and validation labels, sizes and image files.

        Raises:
            BoneageError: An image is missing, or the cache's folder cannot be written.
        """
        tables = (self.train_manifest, self.validation_manifest)
        columns = ["id", "boneage", "male", "width", "height"]
        labels = [
            table[table.columns.intersection(columns)].to_csv(index=False) for table in tables
        ]
        paths = [path for table in tables for path in table["path"]]
        with explaining_write_errors(self.cache, "place with --cache"):
            contents = content_digests(paths, self.cache / DIGESTS)
        return hashlib.sha256(
            "".join(labels + contents).encode(errors="surrogateescape")
        ).hexdigest()

    def prepare_data(self) -> None:
        """Fills the caches; called in one process per machine, which keeps its memory maps."""
        self.setup("fit")

    def setup(self, stage: str | None = None) -> None:
        """Maps the caches into memory; degraded copies only at the stage ``fit``."""
        if not self.batches:
            pooled = None if self.pool is None else self._views(self.pool)
            for split, manifest in (
                ("train", self.train_manifest),
                ("validation", self.validation_manifest),
            ):
                views = self._views(manifest) if pooled is None else pooled
                self.batches[split] = RadiographBatches(views, manifest, self.places[split])
        train = self.batches["train"]
        if stage == "fit" and self.degraded and not train.copies:
            manifest = self.train_manifest if self.pool is None else self.pool
            train.copies = self._views(manifest, self.experiment.training.seed)

    def train_batches_of(self, other: Experiment) -> RadiographBatches:
        """Returns the train split, in the same order, with the views of another experiment."""
        manifest = self.train_manifest if self.pool is None else self.pool
        views = view_pixels(manifest, ViewRenderer(view_settings(other)), self.cache)
        return RadiographBatches(views, self.train_manifest, self.places["train"])

    def release(self) -> None:
        """Frees the device's memory for the next training in the same process."""
        for batches in self.batches.values():
            batches.move_back()
        self._moved.clear()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns shuffled batches of the train split."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns batches of the validation split, in order."""
        return self._loader("validation", shuffle=False)

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Batch]:
        batches = self.batches[split]
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        if device.type == "cuda" and not batches.resident and self._fits(device):
            batches.move_to(device, self._moved)
        sampler = EpochBatches(
            len(batches),
            self.experiment.training.batch_size,
            shuffle=shuffle,
            seed=self.experiment.training.seed,
            degraded=self.degraded,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        # No worker processes: slicing mapped arrays takes microseconds, and workers would copy
        # them once more.
        return DataLoader(
            batches,
            sampler=sampler,
            batch_size=None,
            pin_memory=device.type == "cuda" and not batches.resident,
        )

    def _fits(self, device: torch.device) -> bool:
        views = {
            id(view): view
            for each in self.batches.values()
            for view in (*each.views.values(), *each.copies.values())
        }
        needed = sum(view.nbytes for key, view in views.items() if key not in self._moved)
        free, _ = torch.cuda.mem_get_info(device)
        return needed <= _SHARE_OF_GPU * free

    def _views(self, manifest: pd.DataFrame, degraded: int | None = None) -> Rendered:
        return view_pixels(manifest, self.renderer, self.cache, degraded)


def usable(manifest: pd.DataFrame, data: DataSettings, needs_sex: bool) -> pd.DataFrame:
    """Returns the rows that can be used for training or validation.

    Args:
        manifest: Rows of one or several splits.
        data: The settings that select rows by sex.
        needs_sex: Whether rows of unknown sex are left out.

    Raises:
        BoneageError: No row is left.
    """
    # One impossible age among thousands would spoil the scale of the others.
    possible = [is_bone_age(months) for months in manifest["boneage"].astype(float)]
    fits = np.array(possible, dtype=bool)
    missing = {f"a bone age of 0 to {OLDEST_BONE_AGE:g} months": int((~fits).sum())}
    if needs_sex:
        with_sex = manifest["male"].notna().to_numpy()
        missing["a sex"] = int((fits & ~with_sex).sum())
        fits &= with_sex
    if data.sex != "both":
        fits &= (manifest["male"] == (data.sex == "M")).fillna(False).to_numpy(bool)
    split = ", ".join(manifest["split"].unique())
    if not fits.any():
        raise BoneageError(
            f"split {split}: no image has a possible bone age and the sex that the settings ask "
            "for; 'boneage check-data' lists what is missing"
        )
    if any(missing.values()):
        without = " and ".join(
            f"{count:,} without {what}" for what, count in missing.items() if count
        )
        warnings.warn(
            f"split {split}: left out {without}, of {counted(len(manifest), 'radiograph')}",
            BoneageWarning,
            stacklevel=2,
        )
    warn_of_years(manifest[fits])
    return manifest[fits].reset_index(drop=True)


def mean_and_deviation(ages: pd.Series) -> tuple[float, float]:
    """Returns the mean and standard deviation of ages, months; the deviation is at least 1."""
    values = ages.to_numpy(float)
    return float(values.mean()), max(1.0, float(values.std()))
