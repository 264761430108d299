"""One network for every family and every published system.

    views ─▶ encoder per view ─▶ pooling ─▶ dense layers per view ─▶ join with sex
          ─▶ dense layers ─▶ head ─▶ months

``configs/`` has the combination for each system; tests/models/test_systems.py has them as keyword
arguments, with the known number of weights of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from boneage_cli.models.dense import DenseLayers
from boneage_cli.models.encoders import build_encoder, feature_size
from boneage_cli.models.fusion import FUSIONS, SexFusion
from boneage_cli.models.heads import SexHead, build_age_head
from boneage_cli.models.names import Target, unknown_name
from boneage_cli.models.normalise import Normalise
from boneage_cli.models.options import of_view
from boneage_cli.models.pooling import build_pooling

TARGETS = get_args(Target)

RSNA_AGES = (127.3, 41.2)
"""Mean and standard deviation of the bone ages of RSNA's training radiographs, months."""


class Network(nn.Module):
    """Predicts bone age, sex, or both from one or more views of a hand.

    Arguments marked * take one value for all views, or a mapping from view to value.

    Args:
        views: Names of the views, such as those of a family in ``FAMILIES``.
        backbone: * ``small_cnn``, ``m46``, or a timm model's name.
        channels: * Widths of the blocks of ``small_cnn``.
        in_channels: Input channels of the encoders, 1 or 3; the gray image is repeated.
        normalisation: ``auto`` (what the backbone's weights were trained with), ``zscore`` (per
            image), ``half``, ``imagenet`` or ``unit``.
        input_size: * (height, width) of the views, pixels; needed by the pooling ``flatten`` and by
            backbones with a fixed input size.
        pooling: ``avg``, ``gem``, ``attention``, ``attention_deep`` or ``flatten``.
        branch_hidden: * Widths of the dense layers of each view, before the views are joined.
        branch_activation: Their activation, or one per layer.
        branch_dropout: Their dropout; see ``DenseLayers``.
        sex_fusion: ``none``, ``embedding``, ``mlp``, ``cross_attention``, ``gated`` or
            ``cross_attention_gated``.
        sex_features: Width of the sex features, or the widths of the layers that make them.
        sex_norm: Whether those layers, except the last, are batch-normalised.
        sex_dropout: Dropout after them.
        attention_heads: Heads of the cross-attention.
        hidden: Widths of the dense layers before the head.
        activation: Their activation, or one per layer: ``relu``, ``tanh``, ``swish``, ``mish``,
            ``elu`` or ``gelu``.
        dropout: Their dropout; see ``DenseLayers``.
        norm: Whether each of them begins with batch normalisation.
        head: ``linear``, ``sigmoid`` or ``distribution``.
        max_age: Maximum age of the bounded heads, months.
        targets: The outputs: ``age``, ``sex``, or both.
        age_mean: Mean bone age in training, months; RSNA's by default.
        age_std: Standard deviation of bone ages in training, months.

    Attributes:
        views: Names of the views, in order.
        encoders: The encoder of each view; it returns the feature maps of the last layer.

    Raises:
        ValueError: An unknown name (the message suggests the nearest), or contradictory settings.
    """

    def __init__(
        self,
        views: Sequence[str],
        *,
        backbone: str | Mapping[str, str],
        channels: Sequence[int] | Mapping[str, Sequence[int]] = (32, 64, 128),
        in_channels: int = 1,
        normalisation: str = "auto",
        input_size: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        pooling: str = "avg",
        branch_hidden: Sequence[int] | Mapping[str, Sequence[int]] = (),
        branch_activation: str | Sequence[str] = "relu",
        branch_dropout: float | Sequence[float] = 0.0,
        sex_fusion: str = "none",
        sex_features: int | Sequence[int] = 8,
        sex_norm: bool = False,
        sex_dropout: float = 0.0,
        attention_heads: int = 4,
        hidden: Sequence[int] = (),
        activation: str | Sequence[str] = "relu",
        dropout: float | Sequence[float] = 0.0,
        norm: bool = False,
        head: str = "linear",
        max_age: float = 240,
        targets: Sequence[str] = ("age",),
        age_mean: float = RSNA_AGES[0],
        age_std: float = RSNA_AGES[1],
    ) -> None:
        super().__init__()
        _check(views, in_channels, sex_fusion, targets)
        self.views = tuple(views)
        self.encoder_frozen = False
        self.encoders = nn.ModuleDict()
        self.normalise = nn.ModuleDict()
        self.pooling = nn.ModuleDict()
        self.branches = nn.ModuleDict()
        image_features, map_channels = 0, []
        for view in views:
            size = of_view(input_size, view, views, "input_size")
            pixels = None if size is None else (int(size[0]), int(size[1]))
            encoder = build_encoder(
                of_view(backbone, view, views, "backbone"),
                in_channels=in_channels,
                channels=of_view(channels, view, views, "channels"),
                input_size=pixels,
            )
            pooled = encoder.channels
            if pooling == "flatten":
                if pixels is None:
                    raise ValueError(
                        "pooling = flatten needs input_size, the views' (height, width)"
                    )
                pooled = feature_size(encoder, in_channels, pixels)
            branch = DenseLayers(
                pooled,
                of_view(branch_hidden, view, views, "branch_hidden"),
                activation=branch_activation,
                dropout=branch_dropout,
            )
            self.normalise[view] = Normalise(normalisation, in_channels, encoder.native)
            self.encoders[view] = encoder
            self.pooling[view] = build_pooling(pooling, encoder.channels)
            self.branches[view] = branch
            image_features += branch.features
            map_channels.append(encoder.channels)
        self.fusion: SexFusion | None = None
        if sex_fusion != "none":
            self.fusion = SexFusion(
                sex_fusion,
                image_features,
                map_channels,
                sex_features=sex_features,
                sex_norm=sex_norm,
                sex_dropout=sex_dropout,
                heads=attention_heads,
            )
        self.neck = DenseLayers(
            self.fusion.features if self.fusion else image_features,
            hidden,
            activation=activation,
            dropout=dropout,
            norm=norm,
        )
        self.heads = nn.ModuleDict()
        if "age" in targets:
            self.heads["age"] = build_age_head(
                head, self.neck.features, max_age=max_age, age_mean=age_mean, age_std=age_std
            )
        if "sex" in targets:
            self.heads["sex"] = SexHead(self.neck.features)

    def forward(self, views: dict[str, Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """Predicts a batch of hands.

        Args:
            views: Per view gray values 0…255, uint8 or floating point, shape (B, 1, H, W).
            male: 1 for boys, 0 for girls, shape (B,); None only if the network takes no sex.

        Returns:
            ``age``: months, shape (B,); ``sex``: logit of being a boy, (B,); each if it is a
            target. ``distribution``: probabilities of months 0, 1, …, shape (B, months), with
            that head. ``gate``: share of the image in each fused feature, (B, F), if gated.

        Raises:
            ValueError: A view is missing or has a wrong shape, or the sex is missing.
        """
        return self.decide(self.encode(views), male)

    def encode(self, views: dict[str, Tensor]) -> list[Tensor]:
        """Returns each view's last feature maps, (B, C, h, w); first half of a forward pass.

        Args:
            views: As ``forward`` takes them.

        Raises:
            ValueError: A view is missing or has a wrong shape.
        """
        return [self._encode(view, views) for view in self.views]

    def decide(self, maps: Sequence[Tensor], male: Tensor | None = None) -> dict[str, Tensor]:
        """Predicts from feature maps; the second half of a forward pass.

        Args:
            maps: As returned by ``encode``.
            male: As ``forward`` takes it.

        Returns:
            The same as ``forward``.

        Raises:
            ValueError: The sex is missing.
        """
        image = torch.cat(
            [
                self.branches[view](self.pooling[view](features))
                for view, features in zip(self.views, maps, strict=True)
            ],
            1,
        )
        joined, gate = self._join(image, maps, male)
        features = self.neck(joined)
        outputs: dict[str, Tensor] = {} if gate is None else {"gate": gate}
        for head in self.heads.values():
            outputs.update(head(features))
        return outputs

    def train(self, mode: bool = True) -> Network:
        """Sets training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder_frozen:
            self.encoders.eval()
        return self

    def _encode(self, view: str, views: dict[str, Tensor]) -> Tensor:
        if view not in views:
            raise ValueError(f"the network sees {', '.join(self.views)}; {view} is missing")
        image = views[view]
        if image.ndim != 4 or image.shape[1] != 1:
            raise ValueError(f"view {view} must be (B, 1, H, W) gray, not {tuple(image.shape)}")
        return self.encoders[view](self.normalise[view](image))

    def _join(
        self, image: Tensor, maps: Sequence[Tensor], male: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if self.fusion is None:
            return image, None
        if male is None:
            raise ValueError("this network needs the child's sex, and none is given")
        return self.fusion(image, maps, male)


def encoder_parameters(network: Network) -> list[nn.Parameter]:
    """Returns the weights of the encoders, which do not change in frozen epochs."""
    return list(network.encoders.parameters())


def head_parameters(network: Network) -> list[nn.Parameter]:
    """Returns all weights except the encoders'."""
    encoders = {id(weight) for weight in encoder_parameters(network)}
    return [weight for weight in network.parameters() if id(weight) not in encoders]


def freeze_encoder(network: Network, frozen: bool) -> None:
    """Freezes or unfreezes the encoders.

    Args:
        network: The network; its mode (training or evaluation) does not change.
        frozen: If True, the encoders' weights get no gradients, and their batch normalisation
            keeps its statistics even after ``network.train()``. If False, they are trained.
    """
    for weight in encoder_parameters(network):
        weight.requires_grad_(not frozen)
    network.encoder_frozen = frozen
    network.train(network.training)


def _check(views: Sequence[str], in_channels: int, sex_fusion: str, targets: Sequence[str]) -> None:
    if isinstance(views, str) or not views or len(set(views)) != len(views):
        raise ValueError(f"views must name different views of a hand, not {views!r}")
    if in_channels not in (1, 3):
        raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
    if sex_fusion not in FUSIONS:
        raise unknown_name("sex_fusion", sex_fusion, FUSIONS)
    for target in targets:
        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
    if not targets:
        raise ValueError("targets is empty; choose age, sex, or both")
    if "sex" in targets and sex_fusion != "none":
        raise ValueError(
            f"targets has sex while sex_fusion = {sex_fusion} tells the network the sex; "
            "choose sex_fusion = none"
        )
