"""Trained networks as graphs of arrays: what every runtime runs, and what is exported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from boneage_cli.models.average import AverageNetwork
from boneage_cli.models.landmark_network import LandmarkNetwork, peaks
from boneage_cli.models.network import Network


class AnswerGraph(nn.Module):
    """From the pixels of each view, and the sex, to an answer and the features of ``Likeness``.

    Args:
        network: The network, or several averaged.
        correction: See ``Bundle``.
        takes_sex: Whether the sex is an input of the network.
        needs_sex: Whether it is one of the graph: the correction may differ by sex, too.
        with_features: Whether the features are an output too.
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
            *inputs: Each view in order, uint8 (B, 1, H, W); then, where it is needed, the sex,
                (B,), 1 for boys.

        Returns:
            Months, float32 (B,), where the model predicts age; the probability that this is a boy,
            float32 (B,), where it predicts sex; and the mean of each feature map, float32 (B, F), F
            the channels of all views, of several networks the first's: ``Bundle.graph`` names them.
        """
        views = dict(zip(self.views, inputs, strict=False))
        # Of the batch's length without naming it, which would fix it in what is traced.
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
            # Its limits of what it answers are those of its first network.
            maps = self.network.of_first(maps)
        return (*answer, torch.cat([each.float().mean((2, 3)) for each in maps], 1))


class KeyPointGraph(nn.Module):
    """From the pixels of a hand to its key points.

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
            What ``peaks`` gives: places (B, 3, 2), and how sure they are (B, 3).
        """
        return peaks(self.network(pixels))


def corrected(
    months: Tensor, correction: Mapping[str, tuple[float, float]], male: Tensor
) -> Tensor:
    """Ages with a bundle's correction, (n,) months.

    Args:
        months: The network's, (n,).
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
