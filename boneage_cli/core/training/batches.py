"""Batches of rendered radiographs with their sex and age, and the sampler of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from boneage_cli.core.views import Rendered

Batch = dict[str, Tensor]


class RadiographBatches(Dataset[Batch]):
    """A manifest as a data set: indexing with a list of row numbers gives a batch.

    Sex, age and pixels are indexed by the same row numbers, so they always belong together.

    Args:
        views: For each view, uint8 (N, H, W).
        manifest: The n rows, with ``boneage`` in months and ``male``.
        places: Index of each row's pixels in the views, (n,); None if they are in the same order.
    """

    def __init__(
        self, views: Rendered, manifest: pd.DataFrame, places: np.ndarray | None = None
    ) -> None:
        self.views = views
        # Degraded copies in the same order: row n + i is the copy of row i.
        self.copies: Rendered = {}
        # The views on the training device, if they fit into its memory; see ``move_to``.
        self.resident: dict[str, Tensor] = {}
        self.resident_copies: dict[str, Tensor] = {}
        self.resident_places = torch.empty(0, dtype=torch.long)
        self.places = np.arange(len(manifest)) if places is None else places
        self.age = torch.tensor(manifest["boneage"].to_numpy(float), dtype=torch.float32)
        # The training target: the age, or its mean with a teacher's age; see ``teach``.
        self.target = self.age
        male = manifest["male"].astype("Float32").to_numpy(dtype=float, na_value=math.nan)
        self.male = torch.tensor(male, dtype=torch.float32)

    def __len__(self) -> int:
        """The number of radiographs."""
        return len(self.age)

    def teach(self, months: np.ndarray, share: float) -> None:
        """Mixes a teacher's ages into the training target.

        Args:
            months: The teacher's ages, (n,).
            share: Their share of the target; the rest is the age of the manifest.
        """
        self.target = self.age.lerp(torch.from_numpy(months).to(self.age), share)

    def pixels(self, rows: np.ndarray) -> Rendered:
        """Copies the views of some rows, uint8 (len(rows), H, W) each."""
        places, worse = self.places[rows % len(self)], rows >= len(self)
        shown = {name: pixels[places] for name, pixels in self.views.items()}
        for name, pixels in self.copies.items():
            shown[name][worse] = pixels[places[worse]]
        return shown

    def move_to(self, device: torch.device, moved: dict[int, Tensor]) -> None:
        """Moves all pixels and labels to a device, so that no batch has to be transferred.

        Args:
            device: The training device.
            moved: Views that are already there, by the ``id`` of their arrays: the train and
                validation parts of a fold share them. New ones are added.
        """
        for pixels in (*self.views.values(), *self.copies.values()):
            if id(pixels) not in moved:
                moved[id(pixels)] = _moved(pixels, device)
        self.resident = {name: moved[id(pixels)] for name, pixels in self.views.items()}
        self.resident_copies = {name: moved[id(pixels)] for name, pixels in self.copies.items()}
        self.resident_places = torch.from_numpy(self.places).to(device)
        self._move_labels(device)

    def move_back(self) -> None:
        """Frees the device's memory and moves the labels back to the CPU."""
        self.resident, self.resident_copies = {}, {}
        self.resident_places = self.resident_places.cpu()
        self._move_labels(torch.device("cpu"))

    def _move_labels(self, device: torch.device) -> None:
        self.age, self.male = self.age.to(device), self.male.to(device)
        self.target = self.target.to(device)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """Returns the batch of these rows or copies; a negative row is padding with weight 0."""
        index = torch.tensor(rows, dtype=torch.long)
        if self.age.is_cuda:
            # Pinned memory, so that the transfer does not wait for the GPU's previous step.
            index = index.pin_memory().to(self.age.device, non_blocking=True)
        weight = (index >= 0).float()
        index = index.clamp(min=0)
        child = index % len(self)
        if self.resident:
            places = self.resident_places[child]
            batch = {name: pixels[places].unsqueeze(1) for name, pixels in self.resident.items()}
            worse = (index >= len(self)).view(-1, 1, 1, 1)
            for name, pixels in self.resident_copies.items():
                batch[name] = torch.where(worse, pixels[places].unsqueeze(1), batch[name])
        else:
            batch = {
                name: torch.from_numpy(pixels).unsqueeze(1)
                for name, pixels in self.pixels(index.numpy()).items()
            }
        return batch | {
            "male": self.male[child],
            "age": self.age[child],
            "target": self.target[child],
            "weight": weight,
        }


class EpochBatches(Sampler[list[int]]):
    """Yields the row numbers of each batch; shuffling depends only on the seed and the epoch.

    Batches are as equal in size as possible: one of a single image, on which batch normalisation
    cannot train, occurs only if the largest has at most two. Each of n processes takes every n-th
    row; ranks with fewer rows are padded, with repeated rows in training and with −1 in validation.

    Args:
        size: The number of rows.
        batch_size: The largest batch per process.
        shuffle: Whether rows are permuted, differently in each epoch.
        seed: Seed of the permutations and of the choice of degraded copies.
        degraded: Share of rows replaced by degraded copies, size + row, see ``RadiographBatches``.
        rank: The number of this process, from 0.
        world_size: The number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        degraded: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size, self.shuffle, self.seed, self.degraded = size, shuffle, seed, degraded
        self.rank, self.world_size = rank, world_size
        self.batches = max(1, math.ceil(size / (batch_size * world_size)))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration; called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches of one process."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the row numbers of each batch of this process."""
        rows = np.arange(self.size)
        if self.shuffle:
            chance = np.random.default_rng([self.seed, self.epoch])
            rows = chance.permutation(self.size)
            rows += self.size * (chance.random(self.size) < self.degraded)
        short = -self.size % self.world_size
        padding = np.resize(rows, short) if self.shuffle else np.full(short, -1)
        mine = np.concatenate([rows, padding])[self.rank :: self.world_size]
        for batch in np.array_split(mine, self.batches):
            yield batch.tolist()


def _moved(pixels: np.ndarray, device: torch.device) -> Tensor:
    there = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    # In chunks, because a mapped array would otherwise be copied into memory as a whole.
    for start in range(0, len(pixels), 256):
        piece = slice(start, start + 256)
        there[piece] = torch.from_numpy(np.array(pixels[piece]))
    return there
