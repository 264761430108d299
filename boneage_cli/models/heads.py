"""Prediction heads: from features to an age in months, or to a sex.

Heads compute in float32 even under autocast: at 128 months the resolution of bf16 is one month.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from boneage_cli.models.names import AgeHead, unknown_name

HEADS = get_args(AgeHead)


class Head(nn.Module):
    """A linear layer in full precision; subclasses interpret its output.

    Args:
        features: Width of the input.
        outputs: Number of outputs per example.
    """

    def __init__(self, features: int, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        # So that training begins near the mean age rather than years away from it.
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def scores(self, features: Tensor) -> Tensor:
        """Returns the linear layer's output, float32, shape (B, outputs)."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(features.float())


class LinearHead(Head):
    """Predicts the standardised age and scales it back.

    Args:
        features: Width of the input.
        age_mean: Mean bone age in training, months.
        age_std: Standard deviation of bone ages in training, months.
    """

    age_mean: Tensor
    age_std: Tensor

    def __init__(self, features: int, age_mean: float, age_std: float) -> None:
        super().__init__(features)
        self.register_buffer("age_mean", torch.tensor(float(age_mean)))
        self.register_buffer("age_std", torch.tensor(float(age_std)))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the bone age in months, shape (B,)."""
        return {"age": self.scores(features).squeeze(1) * self.age_std + self.age_mean}


class SigmoidHead(Head):
    """Predicts an age between 0 and ``max_age``, as BoneXage does.

    Args:
        features: Width of the input.
        max_age: The maximum age, months.
    """

    def __init__(self, features: int, max_age: float) -> None:
        super().__init__(features)
        self.max_age = max_age

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the bone age in months, shape (B,)."""
        return {"age": self.scores(features).squeeze(1).sigmoid() * self.max_age}


class DistributionHead(Head):
    """Predicts a probability per month; the age is the expected value (Rothe et al. 2015).

    Args:
        features: Width of the input.
        max_age: The last month.
    """

    months: Tensor

    def __init__(self, features: int, max_age: float) -> None:
        super().__init__(features, int(max_age) + 1)
        self.register_buffer("months", torch.arange(int(max_age) + 1.0), persistent=False)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the bone age in months, (B,), and probabilities of months 0…max_age, (B, M)."""
        probabilities = self.scores(features).softmax(1)
        return {"age": (probabilities * self.months).sum(1), "distribution": probabilities}


class SexHead(Head):
    """Predicts the sex from the image."""

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the logit of being a boy, shape (B,)."""
        return {"sex": self.scores(features).squeeze(1)}


def build_age_head(
    name: str, features: int, *, max_age: float, age_mean: float, age_std: float
) -> Head:
    """Makes the head that predicts the age.

    Args:
        name: One of ``HEADS``.
        features: Width of the input.
        max_age: Maximum age of the bounded heads, months.
        age_mean: Mean bone age in training, months, for the linear head.
        age_std: Standard deviation of bone ages in training, months, for the linear head.

    Raises:
        ValueError: Unknown name, or ``max_age`` or ``age_std`` is too small.
    """
    if max_age < 1 or age_std <= 0:
        raise ValueError(
            f"max_age ({max_age}) must be at least 1 month, and age_std ({age_std}) above 0"
        )
    if name == "linear":
        return LinearHead(features, age_mean, age_std)
    if name == "sigmoid":
        return SigmoidHead(features, max_age)
    if name == "distribution":
        return DistributionHead(features, max_age)
    raise unknown_name("head", name, HEADS)
