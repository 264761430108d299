"""Trained networks as modules with array inputs and outputs, for inference and export."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from boneage_cli.models.average import AverageNetwork
from boneage_cli.models.landmark_network import LandmarkNetwork, peaks
from boneage_cli.models.network import Network


class AnswerGraph(nn.Module):
    """Maps the pixels of each view, and the sex, to predictions and the features of ``Likeness``.

    Args:
        network: The network, or several averaged.
        correction: See ``Bundle``.
        takes_sex: Whether the sex is an input of the network.
        needs_sex: Whether the sex is an input of the graph; the correction may need it, too.
        with_features: Whether the features are also an output.
    """

    def __init__(
        self,
        network: Network | AverageNetwork,
        correction: Mapping[str, tuple[float, float]],
        *,
        takes_sex: bool,
        needs_sex: bool,
        with_features: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.correction = correction
        self.views = network.views
        self.takes_sex = takes_sex
        self.needs_sex = needs_sex
        self.with_features = with_features

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Predicts a batch.

        Args:
            *inputs: Each view in order, uint8 (B, 1, H, W); then, if needed, the sex, (B,), 1 for
                boys.

        Returns:
            Months, float32 (B,), if the model predicts age; the probability of being a boy, float32
            (B,), if it predicts sex; and the mean of each feature map, float32 (B, F), where F is
            the number of channels of all views, of the first network if there are several.
            ``Bundle.graph`` names the outputs.
        """
        views = dict(zip(self.views, inputs, strict=False))
        # Zeros of shape (B,), derived from an input so that tracing keeps the batch dimension
        # dynamic.
        nobody = inputs[0][:, 0, 0, 0].float() * 0
        male = inputs[len(self.views)] if self.needs_sex else nobody
        maps = self.network.encode(views)
        decided = self.network.decide(maps, male if self.takes_sex else None)
        answer = []
        if "age" in decided:
            answer.append(corrected(decided["age"].float(), self.correction, male))
        if "sex" in decided:
            answer.append(decided["sex"].float().sigmoid())
        if not self.with_features:
            return tuple(answer)
        if isinstance(self.network, AverageNetwork):
            # The out-of-distribution limits were fitted to the first network's features.
            maps = self.network.of_first(maps)
        return (*answer, torch.cat([each.float().mean((2, 3)) for each in maps], 1))


class KeyPointGraph(nn.Module):
    """Maps the pixels of a radiograph to the hand's key points.

    Args:
        network: The key-point network.
    """

    def __init__(self, network: LandmarkNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the key points in a batch.

        Args:
            pixels: uint8 (B, 1, S, S).

        Returns:
            As ``peaks``: the points, (B, 3, 2), and their confidence, (B, 3).
        """
        return peaks(self.network(pixels))


def corrected(
    months: Tensor, correction: Mapping[str, tuple[float, float]], male: Tensor
) -> Tensor:
    """Applies a bundle's correction to ages, (n,) months.

    Args:
        months: The network's ages, (n,).
        correction: See ``Bundle``.
        male: 1 for boys, (n,).
    """
    if not correction:
        return months
    (offset, slope), (offset_boys, slope_boys) = (
        correction.get(sex, (0.0, 1.0)) for sex in ("F", "M")
    )
    boys = male > 0.5
    return torch.where(boys, offset_boys + slope_boys * months, offset + slope * months)
