"""Encoders: networks from one normalised view to feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from boneage_cli.models.names import unknown_name
from boneage_cli.models.normalise import Statistics

# Keras' names of backbones and the corresponding timm names.
KERAS_NAMES = {
    "xception": "legacy_xception",
    "resnet50v2": "resnetv2_50",
    "resnet101v2": "resnetv2_101",
    "resnet152v2": "resnetv2_152",
    "mobilenet": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
}

_M46_CHANNELS = (32, 64, 128, 128, 256, 384)


class Encoder(nn.Module):
    """A network from gray values (B, in_channels, H, W) to feature maps (B, channels, h, w).

    Attributes:
        channels: Channels of the feature maps.
        native: Mean and standard deviation per channel that its published weights expect; None if
            there are none, so that its input is normalised to z-scores per image.
        least_pixels: Smallest height and width of an image that leave a feature.
    """

    channels: int
    native: Statistics | None = None
    least_pixels: int = 1


class SmallCNN(nn.Sequential, Encoder):
    """HDA_Project's network; each block is 2 × [Conv 3×3 → BN → ReLU], then max pooling 2×2.

    Args:
        in_channels: Channels of the input.
        channels: Width of each block; each block halves the resolution.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        if not channels or any(width < 1 for width in channels):
            raise ValueError(f"channels must name at least one block's width, not {channels}")
        layers: list[nn.Module] = []
        for width in channels:
            for entering in (in_channels, width):
                layers += [
                    nn.Conv2d(entering, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            layers.append(nn.MaxPool2d(2))
            in_channels = width
        super().__init__(*layers)
        self.channels = in_channels
        self.least_pixels = 2 ** len(channels)
        _initialise(self)


class M46(nn.Sequential, Encoder):
    """Iglovikov et al.'s VGG-like network (2018, arXiv:1712.05053), as in ml-recipe-bone-age.

    Six blocks of [Conv 3×3 → ELU → BN → Conv 1×1 → ELU → BN → max pooling 3×3 with stride 2].

    Args:
        in_channels: Channels of the input.
    """

    native = ((0.5,), (0.5,))
    # Its six poolings leave one feature of this many pixels, and none of fewer.
    least_pixels = 127

    def __init__(self, in_channels: int) -> None:
        layers: list[nn.Module] = []
        for width in _M46_CHANNELS:
            for conv in (nn.Conv2d(in_channels, width, 3, padding=1), nn.Conv2d(width, width, 1)):
                layers += [conv, nn.ELU(inplace=True), nn.BatchNorm2d(width)]
            layers.append(nn.MaxPool2d(3, stride=2))
            in_channels = width
        super().__init__(*layers)
        self.channels = in_channels
        _initialise(self)


class TimmEncoder(Encoder):
    """A timm backbone up to its last feature maps.

    Args:
        name: The model's name in timm, with or without a ``.tag`` of its weights.
        in_channels: Channels of the input.
        input_size: (height, width) of the input, pixels; needed by backbones that fix it.

    Attributes:
        name: The model's name, as given.
        in_channels: Channels of the input, as given.
        input_size: (height, width) of the input, as given.

    Raises:
        ValueError: The model is unknown or does not support this input size.
    """

    def __init__(
        self, name: str, in_channels: int, input_size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.input_size = input_size
        self.backbone = create_backbone(name, in_channels, input_size)
        _drop_classifier(self.backbone)
        self.channels = int(self.backbone.num_features)
        published = self.backbone.pretrained_cfg
        self.native = (tuple(published["mean"]), tuple(published["std"]))

    def forward(self, image: Tensor) -> Tensor:
        """Encodes images of shape (B, C, H, W) to feature maps of shape (B, channels, h, w)."""
        maps = self.backbone.forward_features(image)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return maps.permute(0, 3, 1, 2)
        return self._unfold_tokens(maps, image) if maps.ndim == 3 else maps

    def _unfold_tokens(self, tokens: Tensor, image: Tensor) -> Tensor:
        tokens = tokens[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        count = tokens.shape[1]
        height = (count * image.shape[2] / image.shape[3]) ** 0.5
        # Patches need not divide the image evenly, so a side of the grid may be off by one.
        fitting = [side for side in (math.floor(height), math.ceil(height)) if side]
        fitting = [side for side in fitting if count % side == 0]
        if not fitting:
            raise ValueError(
                f"backbone {self.name} gives {count} tokens that form no grid for images of "
                f"{image.shape[2]}×{image.shape[3]}; choose a backbone with feature maps"
            )
        return tokens.transpose(1, 2).unflatten(2, (fitting[0], count // fitting[0]))


SMALL_NETWORKS: dict[str, Callable[[int, Sequence[int]], Encoder]] = {
    "small_cnn": SmallCNN,
    "m46": lambda in_channels, channels: M46(in_channels),
}
"""The networks that are not timm's: from the input's channels and those of blocks to an encoder."""


def build_encoder(
    backbone: str,
    *,
    in_channels: int = 1,
    channels: Sequence[int] = (32, 64, 128),
    input_size: tuple[int, int] | None = None,
) -> Encoder:
    """Makes an untrained encoder.

    Args:
        backbone: A name in ``SMALL_NETWORKS``, any timm model, or a Keras name in ``KERAS_NAMES``.
        in_channels: Channels of the input.
        channels: Widths of the blocks of ``small_cnn``; the others ignore it.
        input_size: (height, width) of the input, pixels; needed by backbones that fix it.

    Returns:
        A module from (B, in_channels, H, W) to (B, ``.channels``, h, w).

    Raises:
        ValueError: Unknown backbone (the message suggests the nearest names), or the images are too
            small for it.
    """
    if backbone not in SMALL_NETWORKS:
        return TimmEncoder(KERAS_NAMES.get(backbone, backbone), in_channels, input_size)
    encoder = SMALL_NETWORKS[backbone](in_channels, channels)
    if input_size is not None and min(input_size) < encoder.least_pixels:
        raise _too_small(input_size)
    return encoder


def create_backbone(
    name: str,
    in_channels: int,
    input_size: tuple[int, int] | None = None,
    **options: Any,
) -> Any:
    """Makes a timm model without its classifier.

    Args:
        name: The model's name in timm.
        in_channels: Channels of the input.
        input_size: (height, width) of the input, pixels; needed by models that fix it.
        **options: More arguments of ``timm.create_model``.

    Returns:
        The model.

    Raises:
        ValueError: The model is unknown or does not support this input size.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("backbone", name, [*SMALL_NETWORKS, *KERAS_NAMES, *timm.list_models()])
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise unknown_name("weights of a backbone", name, tagged)
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size:
        native_size = published.input_size[1:]
        if input_size is None:
            raise ValueError(f"backbone {name} works at one image size only: set input_size")
        if input_size != native_size:
            try:
                return timm.create_model(
                    name, in_chans=in_channels, num_classes=0, img_size=input_size, **options
                )
            except (TypeError, AssertionError):
                height, width = native_size
                raise ValueError(f"backbone {name} takes images of {height}×{width} only") from None
    return timm.create_model(name, in_chans=in_channels, num_classes=0, **options)


def _drop_classifier(backbone: Any) -> None:
    """Removes the layers behind the feature maps, so that no unused weights remain."""
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    classifiers = [classifier] if isinstance(classifier, str) else classifier
    unused = {name.partition(".")[0] for name in classifiers}
    unused |= {"pre_logits", "norm_head", "fc_norm", "attn_pool"}
    # EfficientNets have conv_head before the pooling, followed by bn2; MobileNetV3-like after it.
    if not hasattr(backbone, "bn2"):
        unused.add("conv_head")
    for part in unused:
        if isinstance(getattr(backbone, part, None), nn.Module):
            setattr(backbone, part, nn.Identity())


def _initialise(network: nn.Module) -> None:
    """Initialises convolutions as He et al. (2015), for both small networks."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def feature_size(encoder: Encoder, in_channels: int, input_size: tuple[int, int]) -> int:
    """Returns the number of values in the feature maps of one image.

    Args:
        encoder: The encoder.
        in_channels: Channels of its input.
        input_size: (height, width) of the image, pixels.

    Raises:
        ValueError: The image is too small for the encoder.
    """
    training = encoder.training
    try:
        return encoder.eval()(torch.zeros(1, in_channels, *input_size)).numel()
    except RuntimeError:
        raise _too_small(input_size) from None
    finally:
        encoder.train(training)


def _too_small(input_size: tuple[int, int]) -> ValueError:
    height, width = input_size
    return ValueError(
        f"{height} × {width} pixels are too few for this backbone; raise height and width"
    )
