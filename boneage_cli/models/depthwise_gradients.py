"""Gradients of depthwise convolutions in bf16 on CPUs.

The CPU library behind torch (oneDNN, as of torch 2.15) has no quick way to two of them in bf16:
that of the input where the stride is 2, and that of kernels of more than three by three. On a CPU
with hardware for bf16 (AMX) these two took three quarters of a training step of EfficientNet-Lite,
which made bf16 slower than fp32. Both can be had of convolutions that are quick:

- The gradient of the input at a stride is a convolution, without one, of the output's gradient
  spread out with zeros between.
- A kernel is covered by windows of three by three pixels; the gradient of each is that of a
  three by three kernel over the input shifted by the window's place.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

_Pair = tuple[int, int]
_WINDOW = 3


def use_fast_depthwise_gradients(network: nn.Module) -> None:
    """Has a network's depthwise convolutions take the quick gradients, where they are trained.

    Weights, names and what the network answers stay as they are.

    Args:
        network: The network; it is changed in place.
    """
    for module in network.modules():
        # What is derived from these may convolve in its own way.
        swapped = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: DepthwiseConv2dSame}.get(type(module))
        if swapped is not None and _is_depthwise(cast(nn.Conv2d, module)):
            module.__class__ = swapped


def _is_depthwise(module: nn.Conv2d) -> bool:
    height, width = module.kernel_size
    return (
        1 < module.groups == module.in_channels == module.out_channels
        and height == width
        and height % 2 == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and max(module.padding) < height
    )


def _takes_quick_way(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` of a kernel per channel, with quick gradients in bf16 on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W)."""
        if not _takes_quick_way(self.weight):
            return super().forward(input)
        return _convolve(self, input, cast(_Pair, self.padding))


class DepthwiseConv2dSame(Conv2dSame):
    """The same of timm's convolution with TensorFlow's padding, which depends on the size."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (B, C, H, W)."""
        if not _takes_quick_way(self.weight):
            return super().forward(x)
        padded = pad_same(x, list(self.kernel_size), list(self.stride))
        return _convolve(self, padded, (0, 0))


def _convolve(module: nn.Conv2d, x: Tensor, padding: _Pair) -> Tensor:
    low = torch.bfloat16
    found: Tensor = _Depthwise.apply(x.to(low), module.weight.to(low), module.stride, padding)
    return found if module.bias is None else found + module.bias.to(low)[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_input, of_weight, *_ = ctx.needs_input_grad
        return (
            input_gradient(gradient, x, weight, ctx.stride, ctx.padding) if of_input else None,
            weight_gradient(gradient, x, weight, ctx.stride, ctx.padding) if of_weight else None,
            None,
            None,
        )


def input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair
) -> Tensor:
    """The gradient of a depthwise convolution's input.

    Args:
        gradient: That of its output, (B, C, h, w).
        x: Its input, (B, C, H, W).
        weight: Its kernels, (C, 1, k, k).
        stride: Rows and columns from one output to the next.
        padding: Rows and columns of zeros on each side.

    Returns:
        (B, C, H, W).
    """
    if stride == (1, 1):
        return _gradients(gradient, x, weight, stride, padding, (True, False))[0]
    (batch, channels, height, width), size = x.shape, weight.shape[-1]
    # Channels last, as all else in training.
    spread = gradient.new_zeros((batch, height + size - 1, width + size - 1, channels))
    spread = spread.permute(0, 3, 1, 2)
    rows, columns = (
        slice(first, first + step * (count - 1) + 1, step)
        for first, step, count in zip(
            (size - 1 - each for each in padding), stride, gradient.shape[2:], strict=True
        )
    )
    spread[:, :, rows, columns] = gradient
    return functional.conv2d(spread, weight.flip(2, 3), groups=channels)


def weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: _Pair, padding: _Pair
) -> Tensor:
    """The gradient of a depthwise convolution's kernels, (C, 1, k, k).

    Args:
        gradient: As in ``input_gradient``, as are the others.
        x: The input.
        weight: The kernels.
        stride: Rows and columns from one output to the next.
        padding: Rows and columns of zeros on each side.
    """
    size = weight.shape[-1]
    if size <= _WINDOW:
        return _gradients(gradient, x, weight, stride, padding, (False, True))[1]
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    # What one window sees of the input over all of the output.
    height, width = (
        step * (count - 1) + _WINDOW for step, count in zip(stride, gradient.shape[2:], strict=True)
    )
    window = weight[:, :, :_WINDOW, :_WINDOW].contiguous()
    found = torch.empty_like(weight)
    for top in range(0, size - 1, _WINDOW - 1):
        for left in range(0, size - 1, _WINDOW - 1):
            seen = padded[:, :, top : top + height, left : left + width]
            seen = seen.contiguous(memory_format=torch.channels_last)
            part = _gradients(gradient, seen, window, stride, (0, 0), (False, True))[1]
            found[:, :, top : top + _WINDOW, left : left + _WINDOW] = part
    return found


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: _Pair,
    padding: _Pair,
    wanted: tuple[bool, bool],
) -> list[Tensor]:
    """Torch's own, of the input and of the kernels."""
    return torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        len(weight),
        (*wanted, False),
    )
