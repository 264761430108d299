"""Re-estimates batch-normalisation statistics before a network is evaluated.

While weights still change quickly, the running averages of batch normalisation lag behind, and
augmented images have other statistics than the clean ones that are predicted: ages are then off by
years, all in one direction. Estimating mean and variance again on clean training images, with fixed
weights, removes this bias (Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576,
"PreciseBN").
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from boneage_cli.models.network import Network


@torch.no_grad()
def measure_norms(
    network: Network, batches: Iterable[tuple[dict[str, Tensor], Tensor | None]]
) -> None:
    """Sets every running mean and variance to the average over batches.

    Layers of a frozen encoder are not changed. The training mode of each module is restored.

    Args:
        network: The network.
        batches: For each batch its views, (B, 1, H, W) each, and 1 or 0 for boys or girls, (B,),
            or None.
    """
    frozen = set(network.encoders.modules()) if network.encoder_frozen else set()
    layers = [
        layer
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats and layer not in frozen
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    try:
        # A compiled network would be compiled again for each momentum.
        with torch.compiler.set_stance("force_eager"):
            for number, (views, male) in enumerate(batches, start=1):
                for layer in layers:
                    # Makes the running averages plain averages over all batches. A momentum of
                    # None does the same, but waits for the GPU in every layer.
                    layer.momentum = 1 / number
                network(views, male)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
