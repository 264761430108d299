"""An ensemble of networks as one module that returns their mean prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from boneage_cli.models.network import Network


class AverageNetwork(nn.Module):
    """An ensemble of networks with the same views, run one after the other; outputs are averaged.

    Errors of different networks are partly independent and average out.

    Args:
        networks: The networks, all with the same targets and the same size of the last feature
            maps.

    Attributes:
        views: Names of the views, in order.

    Raises:
        ValueError: The networks have different views.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        if len({network.views for network in networks}) != 1:
            raise ValueError("networks of different views cannot be averaged as one")
        self.views = networks[0].views
        self.networks = nn.ModuleList(networks)
        # Per view, the number of channels of each network's last feature maps.
        self.channels: dict[str, list[int]] = {
            view: [_channels(network, view) for network in networks] for view in self.views
        }

    def forward(self, views: dict[str, Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """Predicts a batch of hands; see ``Network.forward``.

        Args:
            views: Per view gray values 0…255, (B, 1, H, W).
            male: 1 for boys, 0 for girls, (B,); None only if no network takes the sex.

        Returns:
            ``age``: months, (B,); ``sex``: logit of the mean probability of being a boy, (B,);
            each only if the networks predict it.
        """
        return self.decide(self.encode(views), male)

    def encode(self, views: dict[str, Tensor]) -> list[Tensor]:
        """Returns each view's last feature maps, the networks' channels concatenated, (B, C, h, w).

        Args:
            views: As ``forward`` takes them.
        """
        maps = [cast(Network, network).encode(views) for network in self.networks]
        return [torch.cat(of_view, 1) for of_view in zip(*maps, strict=True)]

    def of_first(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Returns the first network's channels of the maps from ``encode``."""
        return [
            of_view[:, : self.channels[view][0]]
            for view, of_view in zip(self.views, maps, strict=True)
        ]

    def decide(self, maps: Sequence[Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """Predicts from feature maps; the second half of a forward pass.

        Args:
            maps: As returned by ``encode``.
            male: As ``forward`` takes it.

        Returns:
            The same as ``forward``.
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
            # Without torch.logit, which OpenVINO cannot convert.
            answer["sex"] = (boys / (1 - boys)).log()
        return answer


def weights_of_all(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Combines the networks' state dicts into that of an ``AverageNetwork``."""
    return {
        f"networks.{number}.{name}": tensor
        for number, weights in enumerate(networks)
        for name, tensor in weights.items()
    }


def weights_of_each(weights: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Inverse of ``weights_of_all``, numbered from 1; empty for the state dict of one network."""
    networks: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if found := re.fullmatch(r"networks\.(\d+)\.(.+)", name):
            networks.setdefault(int(found[1]) + 1, {})[found[2]] = tensor
    return networks


def _channels(network: Network, view: str) -> int:
    return cast(int, network.encoders[view].channels)
