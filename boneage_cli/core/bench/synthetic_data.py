"""Training data whose epochs are real and made of random numbers in turns."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from boneage_cli.core.training.batches import Batch
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.models.network import RSNA_AGES

KINDS = ("real", "synthetic")


def kind_of(epoch: int) -> str:
    """Real or synthetic, for epochs from 0: pairs of both, of which every second is turned round.

    Neither kind is thus always the first of a pair.
    """
    return KINDS[(epoch + epoch // 2) % 2]


class AlternatingData(BoneAgeData):
    """A data set whose epochs are real and synthetic in turns, as ``kind_of`` says.

    The synthetic ones are as long as the real ones and made of one batch that is on the device.
    """

    def train_dataloader(self) -> DataLoader[Batch]:
        """The loader that training uses, or the synthetic one."""
        assert self.trainer is not None
        real = super().train_dataloader()
        if kind_of(self.trainer.current_epoch) == "real":
            return real
        # The largest of the real batches: they differ by one image at most.
        size = -(-len(self.batches["train"]) // len(real))
        batch = synthetic_batch(
            self.batches["train"][range(size)], self.trainer.strategy.root_device
        )
        return DataLoader(_Repeated(batch, len(real)), batch_size=None)

    def read_once(self) -> None:
        """Brings the training images' cache into memory, as the first epoch of a training does."""
        for pixels in self.batches["train"].views.values():
            for image in pixels:
                image.max()


class _Repeated(Dataset[Batch]):
    """The same batch again and again."""

    def __init__(self, batch: Batch, times: int) -> None:
        self.batch, self.times = batch, times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, position: int) -> Batch:
        return self.batch


def synthetic_batch(like: Batch, device: torch.device) -> Batch:
    """Random numbers in the shapes and types of a batch.

    Args:
        like: The batch: views, uint8 (B, 1, H, W), and ``male``, ``age``, ``target`` and
            ``weight``, (B,) each.
        device: Where the tensors are made.
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
