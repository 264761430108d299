"""Tests that the fast bf16 gradients of depthwise convolutions on CPUs are correct."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from boneage_cli.models.depthwise_gradients import (
    DepthwiseConv2d,
    DepthwiseConv2dSame,
    input_gradient,
    use_fast_depthwise_gradients,
    weight_gradient,
)


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    height=st.integers(7, 14),
    width=st.integers(7, 14),
    channels=st.integers(2, 5),
)
def test_they_are_those_of_torch_whatever_the_shape(
    size: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    height: int,
    width: int,
    channels: int,
) -> None:
    padding = (min(padding[0], size - 1), min(padding[1], size - 1))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, size, size, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    weight.requires_grad_()
    y = nn.functional.conv2d(x, weight, None, stride, padding, 1, channels)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(gradient)
    with torch.no_grad():
        torch.testing.assert_close(input_gradient(gradient, x, weight, stride, padding), x.grad)
        torch.testing.assert_close(
            weight_gradient(gradient, x, weight, stride, padding), weight.grad
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_a_step_in_bf16_is_that_of_fp32_but_for_rounding(
    kind: type[nn.Conv2d], stride: int
) -> None:
    torch.manual_seed(0)
    plain = kind(8, 8, 5, stride=stride, padding=2, groups=8, bias=False)
    quick = copy.deepcopy(plain)
    use_fast_depthwise_gradients(quick)
    assert type(quick) in (DepthwiseConv2d, DepthwiseConv2dSame)
    x = torch.randn(4, 8, 15, 12)
    seen, plain_seen = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = quick(seen)
    assert answer.dtype == torch.bfloat16
    expected = plain(plain_seen)
    torch.testing.assert_close(answer.float(), expected, rtol=0.02, atol=0.02)
    answer.float().square().mean().backward()
    expected.square().mean().backward()
    learnt = zip(quick.parameters(), plain.parameters(), strict=True)
    for found, wanted in ((seen, plain_seen), *learnt):
        assert (found.grad - wanted.grad).norm() < 0.01 * wanted.grad.norm()


def test_without_bf16_nothing_changes() -> None:
    torch.manual_seed(0)
    plain = Conv2dSame(6, 6, 5, stride=2, groups=6, bias=False)
    quick = copy.deepcopy(plain)
    use_fast_depthwise_gradients(quick)
    x = torch.randn(2, 6, 9, 11)
    assert torch.equal(plain(x), quick(x))
    assert quick.state_dict().keys() == plain.state_dict().keys()


def test_only_depthwise_convolutions_are_changed() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, (3, 5), groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2, bias=False),
    )
    use_fast_depthwise_gradients(network)
    assert {type(layer) for layer in network} == {nn.Conv2d}


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(
    ("stride", "padding"), [((1, 2), (2, 0)), ((2, 1), (0, 2)), ((3, 2), (1, 2))]
)
def test_rows_and_columns_may_have_strides_of_their_own(
    size: int, stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, size, stride=stride, padding=padding, groups=6, bias=False)
    quick = copy.deepcopy(plain)
    use_fast_depthwise_gradients(quick)
    assert type(quick) is DepthwiseConv2d
    x = torch.randn(2, 6, 13, 10)
    seen, plain_seen = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quick(seen).float().square().mean().backward()
    plain(plain_seen).square().mean().backward()
    for found, wanted in ((seen, plain_seen), (quick.weight, plain.weight)):
        assert (found.grad - wanted.grad).norm() < 0.02 * wanted.grad.norm()
