"""Several networks as one, whose answer is the mean of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from boneage_cli.models.network import Network


class AverageNetwork(nn.Module):
    """Networks that see the same views, run one after the other; each answer is their mean.

    What unlike networks get wrong differs in part, and averages out.

    Args:
        networks: Those networks, all of which predict the same; their last feature maps are of one
            size.

    Attributes:
        views: Names of the views, in order.

    Raises:
        ValueError: They see different views.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        if len({network.views for network in networks}) != 1:
            raise ValueError("networks of different views cannot be averaged as one")
        self.views = networks[0].views
        self.networks = nn.ModuleList(networks)
        # Of each view the channels of every network's last feature maps.
        self.channels: dict[str, list[int]] = {
            view: [_channels(network, view) for network in networks] for view in self.views
        }

    def forward(self, views: dict[str, Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """Predicts a batch of hands; see ``Network.forward``.

        Args:
            views: Per view gray values 0…255, (B, 1, H, W).
            male: 1 for boys, 0 for girls, (B,); None only where no network takes the sex.

        Returns:
            ``age``: months, (B,); ``sex``: logit of the mean probability of being a boy, (B,); each
            where the networks predict it.
        """
        return self.decide(self.encode(views), male)

    def encode(self, views: dict[str, Tensor]) -> list[Tensor]:
        """The last feature maps of each view, all networks' channels side by side, (B, C, h, w).

        Args:
            views: As ``forward`` takes them.
        """
        maps = [cast(Network, network).encode(views) for network in self.networks]
        return [torch.cat(of_view, 1) for of_view in zip(*maps, strict=True)]

    def of_first(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The first network's part of what ``encode`` gives."""
        return [
            of_view[:, : self.channels[view][0]]
            for view, of_view in zip(self.views, maps, strict=True)
        ]

    def decide(self, maps: Sequence[Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """What follows from feature maps.

        Args:
            maps: As ``encode`` gives them.
            male: As ``forward`` takes it.

        Returns:
            What ``forward`` gives.
        """
        parts = [
            torch.split(of_view, self.channels[view], 1)
            for view, of_view in zip(self.views, maps, strict=True)
        ]
        outputs = [
            cast(Network, network).decide(own, male)
            for network, *own in zip(self.networks, *parts, strict=True)
        ]
        answer: dict[str, Tensor] = {}
        if "age" in outputs[0]:
            answer["age"] = torch.stack([each["age"].float() for each in outputs]).mean(0)
        if "sex" in outputs[0]:
            boys = torch.stack([each["sex"].float().sigmoid() for each in outputs]).mean(0)
            boys = boys.clamp(1e-7, 1 - 1e-7)
            # Not by torch.logit, which OpenVINO does not convert.
            answer["sex"] = (boys / (1 - boys)).log()
        return answer


def weights_of_all(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The state of an ``AverageNetwork`` of these networks' states."""
    return {
        f"networks.{number}.{name}": tensor
        for number, weights in enumerate(networks)
        for name, tensor in weights.items()
    }


def weights_of_each(weights: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """What ``weights_of_all`` was given, by number from 1; empty for the state of one network."""
    networks: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if found := re.fullmatch(r"networks\.(\d+)\.(.+)", name):
            networks.setdefault(int(found[1]) + 1, {})[found[2]] = tensor
    return networks


def _channels(network: Network, view: str) -> int:
    return cast(int, network.encoders[view].channels)
