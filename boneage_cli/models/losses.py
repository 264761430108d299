"""Loss functions on bone age.

Imports torch only inside functions, because settings are validated with this module and importing
torch takes seconds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneage_cli.models.names import unknown_name

if TYPE_CHECKING:
    from torch import Tensor


def options_of(name: str) -> list[str]:
    """Returns the option names of a loss besides ``scale``; empty if the loss is unknown."""
    return list(inspect.signature(LOSSES[name]).parameters)[2:] if name in LOSSES else []


def build_loss(name: str, *, scale: float = 1.0, **options: float) -> AgeLoss:
    """Makes a loss on months.

    Args:
        name: A key of ``LOSSES``.
        scale: Months per unit of the loss and of its options; 1 means months. To reproduce a
            system that trains on standardised ages, use its divisor (41.2 for BoneAge, 120 for
            ml-recipe-bone-age): then its δ, w and gradient clipping apply as published.
        **options: Arguments of the function of that name in this module, such as ``delta=10``.

    Returns:
        The loss; see ``AgeLoss.__call__``.

    Raises:
        ValueError: Unknown name or option (the message suggests the nearest), or an option out of
            range.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    known = options_of(name)
    for option, value in {"scale": scale, **options}.items():
        if option not in ("scale", *known):
            raise unknown_name(f"option of loss {name}", option, ["scale", *known])
        if not 0 < value < math.inf:
            raise ValueError(f"loss {name}: {option} must be positive, not {value}")
    if options.get("share", 0) > 1:
        raise ValueError(f"loss {name}: share must be at most 1, not {options['share']}")
    return AgeLoss(name, scale, options)


@dataclass(frozen=True)
class AgeLoss:
    """A loss on months; ``build_loss`` checks its arguments.

    Attributes:
        name: A key of ``LOSSES``.
        scale: Months per unit of the loss.
        options: Arguments of the function of that name.
    """

    name: str
    scale: float
    options: dict[str, float]

    def __call__(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the mean loss of a batch.

        Args:
            predicted: Months, shape (B,).
            target: Months, shape (B,).
            weight: Weight of each example, shape (B,); None for equal weights.

        Returns:
            A scalar, float32.

        Raises:
            ValueError: The shapes differ; (B,) and (B, 1) would be broadcast to (B, B).
        """
        if predicted.shape != target.shape:
            raise ValueError(f"ages {tuple(predicted.shape)} and {tuple(target.shape)} do not pair")
        predicted, target = predicted.float() / self.scale, target.float() / self.scale
        losses = LOSSES[self.name](predicted, target, **self.options)
        return losses.mean() if weight is None else weighted_mean(losses, weight)


def weighted_mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Returns the weighted mean of losses; losses and weights have shape (B,)."""
    # A batch that is all padding has a loss of 0 instead of NaN.
    return (losses * weight).sum() / weight.sum().clamp_min(1e-30)


def mae(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error."""
    return (predicted - target).abs()


def mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error."""
    return (predicted - target).square()


def huber(predicted: Tensor, target: Tensor, delta: float = 10.0) -> Tensor:
    """Half the squared error up to ``delta``, linear with slope ``delta`` above it."""
    from torch.nn import functional

    return functional.huber_loss(predicted, target, reduction="none", delta=delta)


def smooth_l1(predicted: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Huber loss divided by ``beta``: slope 1 above it. Other definitions use σ = 1/√beta."""
    from torch.nn import functional

    return functional.smooth_l1_loss(predicted, target, reduction="none", beta=beta)


def wing(predicted: Tensor, target: Tensor, w: float = 10.0, eps: float = 2.0) -> Tensor:
    """Wing loss: logarithmic up to ``w`` with curvature ``eps``, then linear (Feng et al. 2018)."""
    error = (predicted - target).abs()
    linear = error - (w - w * math.log1p(w / eps))
    return (w * (error / eps).log1p()).where(error < w, linear)


def l1_l2(predicted: Tensor, target: Tensor, share: float = 0.5) -> Tensor:
    """``share`` · absolute error + (1 - ``share``) · squared error."""
    return share * mae(predicted, target) + (1 - share) * mse(predicted, target)


def mae_relative(
    predicted: Tensor, target: Tensor, share: float = 0.7, floor: float = 12.0
) -> Tensor:
    """``share`` · absolute error + (1 - ``share``) · error relative to the age.

    Ages below ``floor`` count as ``floor``, so that a newborn's error does not dominate a batch.
    """
    error = mae(predicted, target)
    return share * error + (1 - share) * error / target.clamp_min(floor)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mae": mae,
    "mse": mse,
    "huber": huber,
    "smooth_l1": smooth_l1,
    "wing": wing,
    "l1_l2": l1_l2,
    "mae_relative": mae_relative,
}
