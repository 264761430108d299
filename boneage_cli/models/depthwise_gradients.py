"""Gradients of depthwise convolutions in bf16 on CPUs.

The CPU library behind torch (oneDNN, as of torch 2.15) has no fast bf16 kernel for two of them: the
input gradient at stride 2, and the weight gradient of kernels larger than 3 × 3. On a CPU with bf16
hardware (AMX) these two took three quarters of a training step of EfficientNet-Lite, which made
bf16 slower than fp32. Both can be computed from convolutions that are fast:

- The input gradient at a stride is a stride-1 convolution of the output's gradient with zeros
  inserted between its values.
- A kernel is covered by 3 × 3 windows; the gradient of each window is the weight gradient of a
  3 × 3 kernel over the input shifted by the window's offset.
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
    """Replaces a network's depthwise convolutions by ones with fast gradients, for training.

    Weights, their names and the outputs do not change.

    Args:
        network: The network; it is changed in place.
    """
    for module in network.modules():
        # Exact types only: subclasses may convolve differently.
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
    """Depthwise ``nn.Conv2d`` with fast gradients in bf16 on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves (B, C, H, W)."""
        if not _takes_quick_way(self.weight):
            return super().forward(input)
        return _convolve(self, input, cast(_Pair, self.padding))


class DepthwiseConv2dSame(Conv2dSame):
    """The same for timm's convolution with TensorFlow's size-dependent ("same") padding."""

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
    """Returns the gradient with respect to a depthwise convolution's input.

    Args:
        gradient: Gradient of the output, (B, C, h, w).
        x: The input, (B, C, H, W).
        weight: The kernels, (C, 1, k, k).
        stride: Stride in rows and columns.
        padding: Rows and columns of zeros on each side.

    Returns:
        (B, C, H, W).
    """
    if stride == (1, 1):
        return _gradients(gradient, x, weight, stride, padding, (True, False))[0]
    (batch, channels, height, width), size = x.shape, weight.shape[-1]
    # Channels-last memory format, as everywhere in training.
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
    """Returns the gradient with respect to a depthwise convolution's kernels, (C, 1, k, k).

    The arguments are those of ``input_gradient``.
    """
    size = weight.shape[-1]
    if size <= _WINDOW:
        return _gradients(gradient, x, weight, stride, padding, (False, True))[1]
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    # Size of the part of the input that one window covers.
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
    """Calls torch's own gradients of the input and of the kernels."""
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
