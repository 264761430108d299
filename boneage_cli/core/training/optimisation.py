"""Optimisers, learning-rate schedules and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from boneage_cli.core.config import CYCLICAL, TrainingSettings


def build_optimiser(
    groups: Iterable[dict[str, Any]], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Makes the optimiser.

    Args:
        groups: Parameter groups with ``params`` and ``lr``.
        settings: The training settings.
    """
    groups = list(groups)
    if settings.optimiser == "sgd":
        momentum = settings.betas[0]
        return torch.optim.SGD(
            groups,
            momentum=momentum,
            weight_decay=settings.weight_decay,
            nesterov=momentum > 0,
        )
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, betas=settings.betas, weight_decay=settings.weight_decay)


def with_and_without_decay(
    parameters: Iterable[torch.nn.Parameter], learning_rate: float, part: str
) -> list[dict[str, Any]]:
    """Splits weights into matrices and kernels with weight decay, and biases and norms without.

    Args:
        parameters: The weights of one part of a network.
        learning_rate: The learning rate of both groups.
        part: The part's name, stored in the groups, such as ``encoder`` or ``head``.
    """
    parameters = list(parameters)
    kernels = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "lr": learning_rate, "part": part},
        {"params": vectors, "lr": learning_rate, "part": part, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def cosine_rate(step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """Returns a factor that rises to 1 over the warm-up and then falls along half a cosine.

    Args:
        step: The number of the step, from 0.
        steps: The number of all steps.
        warmup: The number of warm-up steps.
        floor: The factor at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def rate_schedule(settings: TrainingSettings, steps: int, part: str) -> Callable[[int], float]:
    """Returns a function from the optimiser step to the factor on the learning rate.

    Args:
        settings: The training settings; ``plateau`` is stepped by a validation metric instead and
            has a constant factor here.
        steps: The number of optimiser steps of the whole training.
        part: ``encoder`` or ``head``, whose rate changes after the frozen epochs.
    """
    per_epoch = max(1, steps // settings.epochs)

    def cosine(step: int) -> float:
        warmup = round(settings.warmup_epochs * per_epoch)
        return cosine_rate(step, steps, warmup, settings.final_rate)

    def cyclical(step: int) -> float:
        # Smith 2017 (arXiv:1506.01186): the rate rises from base to learning_rate and back in each
        # cycle; triangular2 halves the amplitude per cycle, exp_range shrinks it per step.
        base = settings.cyclic_base / settings.learning_rate
        cycle, position = divmod(step, 2 * settings.cyclic_steps)
        height = 1 - abs(position / settings.cyclic_steps - 1)
        swing = {
            "triangular": 1.0,
            "triangular2": 0.5**cycle,
            "exp_range": settings.cyclic_gamma**step,
        }[settings.schedule]
        return base + (1 - base) * height * swing

    def constant(step: int) -> float:
        return 1.0

    cycles = dict.fromkeys(CYCLICAL, cyclical)
    schedule = {"cosine": cosine, **cycles}.get(settings.schedule, constant)
    if part != "head" or settings.head_fine_tune_rate == 1:
        return schedule
    frozen = settings.frozen_epochs * per_epoch
    return lambda step: schedule(step) * (settings.head_fine_tune_rate if step >= frozen else 1)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float, steps: int) -> None:
    """Updates an exponential moving average of a network's weights; integer buffers are copied.

    The decay is smaller in the first steps, so that the average soon forgets its untrained start.

    Args:
        average: The averaged network, of the same architecture; changed in place.
        network: The network.
        decay: Share of the average that is kept per step after the first steps.
        steps: The number of optimiser steps so far.
    """
    decay = min(decay, (1 + steps) / (10 + steps))
    pairs = list(zip(_tensors(average), _tensors(network), strict=True))
    # In two calls, because one tensor at a time takes hundreds of GPU kernel launches.
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    get_ema_multi_avg_fn(decay)(means, values, None)
    if counts := [pair for pair in pairs if not pair[0].is_floating_point()]:
        torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
