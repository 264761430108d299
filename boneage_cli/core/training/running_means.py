"""Weighted means of an epoch's metrics, accumulated on the training device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class RunningMeans(Metric):
    """Means of several metrics over all batches and processes since the last reset.

    torchmetrics' own mean checks for NaN at each update, which waits for the GPU. Here NaN
    propagates through the sums to the mean.

    Args:
        names: The names of the metrics.
    """

    full_state_update = False
    totals: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        # Per metric, the weighted sum and the sum of the weights.
        zeros = torch.zeros(len(names), 2, dtype=torch.float64)
        self.add_state("totals", zeros, dist_reduce_fx="sum")

    def update(self, figures: Mapping[str, Tensor], weight: Tensor) -> None:
        """Adds a batch.

        Args:
            figures: Metrics by name (some of ``names``), one value per image (B,).
            weight: The weight of each image (B,).
        """
        whole = weight.sum()
        for name, values in figures.items():
            both = torch.stack([(values * weight).sum(), whole])
            self.totals[self.names.index(name)] += both

    def compute(self) -> dict[str, float]:
        """Returns the means of all metrics whose weights do not sum to zero."""
        totals = dict(zip(self.names, self.totals.tolist(), strict=True))
        return {name: total / weight for name, (total, weight) in totals.items() if weight}
