"""Floating-point operations of a training step, and a device's peak rate of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from boneage_cli.models.network import Network

# Sizes of the square matrices whose products measure the peak; larger ones are no faster.
MATRICES = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
_PEAK_SECONDS, _PEAK_LEAST = 0.3, 3
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def flops_of_step(network: Network, views: Mapping[str, Tensor], male: Tensor | None) -> int:
    """Counts the floating-point operations of a forward and a backward pass.

    Only convolutions and matrix products are counted, not augmentation and the optimiser; a
    multiplication and an addition are two operations, as is usual.

    Args:
        network: The network, in training mode; its gradients are reset.
        views: Per view uint8, (B, 1, H, W).
        male: 1 or 0, (B,); None if the network does not use the sex.
    """
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter:
        outputs = network(dict(views), male)
        torch.stack([outputs[name].float().sum() for name in network.heads]).sum().backward()
    network.zero_grad()
    return counter.get_total_flops()


def _convolution_backward(
    gradient: Any, pixels: Any, kernel: Any, *rest: Any, **options: Any
) -> int:
    # Each gradient takes as many operations as the convolution. torch's own formula counts a
    # depthwise convolution like a dense one.
    *_, transposed, _padding, _groups, wanted = rest
    return sum(wanted[:2]) * conv_flop_count(pixels, kernel, gradient, transposed)


def peak_arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the FLOP/s of the fastest of many products of large matrices."""
    peak = 0.0
    with _fast_products(device):
        for size in MATRICES[device.type]:
            left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
            times: list[float] = []
            end = time.perf_counter() + _PEAK_SECONDS
            while len(times) < _PEAK_LEAST or time.perf_counter() < end:
                wait_for(device)
                begun = time.perf_counter()
                torch.mm(left, right)
                wait_for(device)
                times.append(time.perf_counter() - begun)
            peak = max(peak, 2 * size**3 / min(times))
            if min(times) > _PEAK_SECONDS:
                # Slow, as in emulated precisions: the next size would take eight times as long.
                break
    return peak


@contextmanager
def _fast_products(device: torch.device) -> Iterator[None]:
    # By default cuDNN's convolutions use TF32 in 32-bit precision, but matrix products do not.
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has finished all its work; does nothing for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
