"""Weighted means of an epoch's figures, gathered on the device that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class RunningMeans(Metric):
    """Means of several figures over all batches and processes since the last reset.

    torchmetrics' own mean looks for NaN at each update, for which a GPU has to finish what it was
    given so far. Here NaN stays in the sums, so it shows in the mean.

    Args:
        names: The figures.
    """

    full_state_update = False
    totals: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        # Of each figure the weighted sum and the sum of the weights.
        zeros = torch.zeros(len(names), 2, dtype=torch.float64)
        self.add_state("totals", zeros, dist_reduce_fx="sum")

    def update(self, figures: Mapping[str, Tensor], weight: Tensor) -> None:
        """Adds a batch.

        Args:
            figures: Of some of the names, one value per image (B,).
            weight: How much each image counts (B,).
        """
        for name, values in figures.items():
            both = torch.stack([(values * weight).sum(), weight.sum()])
            self.totals[self.names.index(name)] += both

    def compute(self) -> dict[str, float]:
        """The means of all figures that had images of any weight."""
        totals = dict(zip(self.names, self.totals.tolist(), strict=True))
        return {name: total / weight for name, (total, weight) in totals.items() if weight}
