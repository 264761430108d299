"""Training data that alternates between real and synthetic epochs."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from boneage_cli.core.training.batches import Batch
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.models.network import RSNA_AGES

KINDS = ("real", "synthetic")


def kind_of(epoch: int) -> str:
    """Returns the kind of an epoch, counted from 0: pairs of both, every second one reversed.

    Thus neither kind is always the first of a pair.
    """
    return KINDS[(epoch + epoch // 2) % 2]


class AlternatingData(BoneAgeData):
    """A data set that alternates between real and synthetic epochs, see ``kind_of``.

    Synthetic epochs are as long as real ones and repeat one batch that is on the device.
    """

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns the loader that training uses, or the synthetic one."""
        assert self.trainer is not None
        real = super().train_dataloader()
        if kind_of(self.trainer.current_epoch) == "real":
            return real
        # Size of the largest real batch; sizes differ by at most one image.
        size = -(-len(self.batches["train"]) // len(real))
        batch = synthetic_batch(
            self.batches["train"][range(size)], self.trainer.strategy.root_device
        )
        return DataLoader(_Repeated(batch, len(real)), batch_size=None)

    def read_once(self) -> None:
        """Reads the cached training images into memory, as the first epoch of a training does."""
        for pixels in self.batches["train"].views.values():
            for image in pixels:
                image.max()


class _Repeated(Dataset[Batch]):
    """Repeats one batch."""

    def __init__(self, batch: Batch, times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, position: int) -> Batch:
        return self.batch


def synthetic_batch(like: Batch, device: torch.device) -> Batch:
    """Makes random numbers in the shapes and types of a batch.

    Args:
        like: The batch: views, uint8 (B, 1, H, W), and ``male``, ``age``, ``target`` and
            ``weight``, (B,) each.
        device: Device of the tensors.
    """
    batch = {
        name: torch.randint(0, 256, value.shape, dtype=torch.uint8, device=device)
        for name, value in like.items()
        if value.dtype == torch.uint8
    }
    count = len(like["age"])
    age = RSNA_AGES[0] + RSNA_AGES[1] * torch.randn(count, device=device)
    return batch | {
        "male": torch.randint(0, 2, (count,), device=device).float(),
        "age": age,
        "target": age,
        "weight": torch.ones(count, device=device),
    }
