"""Fusion of the child's sex with the image features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor, nn

from boneage_cli.models.dense import BatchNorm
from boneage_cli.models.names import Fusion, unknown_name

FUSIONS = get_args(Fusion)


class SexEmbedding(nn.Module):
    """One learnt vector per sex; mixed sexes, as from mixup, are interpolated.

    Args:
        features: Width of the vectors.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(2, features)

    def forward(self, male: Tensor) -> Tensor:
        """Embeds sexes of shape (B, 1), 1 for boys, to (B, features)."""
        girl, boy = self.vectors.weight
        return (1 - male) * girl + male * boy


class SexLayers(nn.Sequential):
    """Dense layers from the sex as a number (0 or 1) to sex features.

    Args:
        widths: Widths of the layers.
        norm: Whether all layers but the last are batch-normalised.
        dropout: Dropout after the last layer.
    """

    def __init__(self, widths: Sequence[int], *, norm: bool = False, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = [nn.Linear(1, widths[0])]
        for entering, width in pairwise(widths):
            layers += [BatchNorm(entering)] if norm else []
            layers += [nn.ReLU(), nn.Linear(entering, width)]
        super().__init__(*layers, nn.ReLU(), nn.Dropout(dropout))


class CrossAttention(nn.Module):
    """Cross-attention from the sex features to the positions of the feature maps.

    The query is made from the sex features; keys and values are the spatial tokens of every view.
    The result is added to the image features and layer-normalised (Vaswani et al. 2017). BoneAge
    attended to a single key, for which the softmax is always 1.

    Args:
        features: Width of the image features.
        map_channels: Channels of each view's feature maps.
        sex_features: Width of the sex features.
        heads: Attention heads; they must divide ``features``.

    Raises:
        ValueError: ``features`` is not divisible by ``heads``.
    """

    def __init__(
        self, features: int, map_channels: Sequence[int], sex_features: int, heads: int
    ) -> None:
        super().__init__()
        if heads < 1 or features % heads:
            raise ValueError(
                f"{heads} attention heads cannot share {features} image features evenly; "
                "choose branch_hidden or attention_heads so that they can"
            )
        self.query = nn.Sequential(nn.Linear(sex_features, features), nn.ReLU())
        # Feature maps differ in scale between encoders, and large keys saturate the softmax.
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in map_channels)
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(features, heads, kdim=width, vdim=width, batch_first=True)
            for width in map_channels
        )
        self.norm = nn.LayerNorm(features)

    def forward(self, image: Tensor, maps: Sequence[Tensor], sex: Tensor) -> Tensor:
        """Adds the attention of sex (B, S) to maps, each (B, C, h, w), to image features (B, F)."""
        query = self.query(sex).unsqueeze(1)
        for norm, attention, view in zip(self.norms, self.attentions, maps, strict=True):
            tokens = norm(view.flatten(2).transpose(1, 2))
            answer, _ = attention(query, tokens, tokens, need_weights=False)
            image = image + answer.squeeze(1)
        return self.norm(image)


class Concatenation(nn.Module):
    """Concatenates image features and sex features.

    Args:
        image_features: Width of the image features.
        sex_features: Width of the sex features.
    """

    def __init__(self, image_features: int, sex_features: int) -> None:
        super().__init__()
        self.features = image_features + sex_features

    def forward(self, image: Tensor, sex: Tensor) -> tuple[Tensor, None]:
        """Joins (B, F) and (B, S) to (B, F + S)."""
        return torch.cat([image, sex.to(image.dtype)], 1), None


class Gate(nn.Module):
    """Gated sum per feature: g · image + (1 - g) · sex.

    Args:
        image_features: Width of the image features, which are projected to ``sex_features``.
        sex_features: Width of the sex features and of the output.
    """

    def __init__(self, image_features: int, sex_features: int) -> None:
        super().__init__()
        self.project = nn.Linear(image_features, sex_features)
        self.gate = nn.Linear(2 * sex_features, sex_features)
        self.features = sex_features

    def forward(self, image: Tensor, sex: Tensor) -> tuple[Tensor, Tensor]:
        """Joins (B, F) and (B, S) to (B, S); the second result is the gates (B, S), 0…1."""
        image = self.project(image)
        gate = self.gate(torch.cat([image, sex.to(image.dtype)], 1)).float().sigmoid()
        return gate * image + (1 - gate) * sex, gate


class SexFusion(nn.Module):
    """Joins the image features with the sex.

    Args:
        name: One of ``FUSIONS`` except ``none``.
        image_features: Width of the image features.
        map_channels: Channels of each view's feature maps.
        sex_features: Width of the sex features, or the widths of the layers that make them.
        sex_norm: Whether those layers, except the last, are batch-normalised.
        sex_dropout: Dropout after them.
        heads: Heads of the cross-attention.

    Attributes:
        features: Width of the output.

    Raises:
        ValueError: Unknown name, or incompatible widths.
    """

    def __init__(
        self,
        name: str,
        image_features: int,
        map_channels: Sequence[int],
        *,
        sex_features: int | Sequence[int],
        sex_norm: bool,
        sex_dropout: float,
        heads: int,
    ) -> None:
        super().__init__()
        known = [fusion for fusion in FUSIONS if fusion != "none"]
        if name not in known:
            raise unknown_name("sex_fusion", name, known)
        widths = [sex_features] if isinstance(sex_features, int) else list(sex_features)
        if not widths or any(width < 1 for width in widths):
            raise ValueError(f"sex_features must be at least 1 wide, not {sex_features}")
        if name == "embedding" and len(widths) > 1:
            raise ValueError(f"an embedding has one width, not sex_features = {tuple(widths)}")
        self.sex: nn.Module = (
            SexEmbedding(widths[0])
            if name == "embedding"
            else SexLayers(widths, norm=sex_norm, dropout=sex_dropout)
        )
        self.attention = (
            CrossAttention(image_features, map_channels, widths[-1], heads)
            if name.startswith("cross_attention")
            else None
        )
        join = Gate if name.endswith("gated") else Concatenation
        self.join = join(image_features, widths[-1])
        self.features = self.join.features

    def forward(
        self, image: Tensor, maps: Sequence[Tensor], male: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Joins image features and sex.

        Args:
            image: Image features, shape (B, F).
            maps: Feature maps per view, each of shape (B, C, h, w).
            male: 1 for boys, 0 for girls, shape (B,).

        Returns:
            Joined features of shape (B, ``features``); the gates, or None without gating.
        """
        sex = self.sex(male.float().unsqueeze(1))
        if self.attention is not None:
            image = self.attention(image, maps, sex)
        return self.join(image, sex)
