"""Error metrics of predicted bone ages, with confidence intervals.

Intervals of means are 95 % percentile bootstrap intervals over radiographs (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13) with a fixed seed, so the same predictions always
give the same interval. Shares have Wilson intervals, whose width is not zero if all are right.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from boneage_cli.wording import decimal

RESAMPLES = 10_000
LEVEL = 0.95
INTERVAL = f"{LEVEL:.0%} percentile bootstrap, {RESAMPLES} resamples of radiographs"
"""Name of the intervals of means in files."""

SHARE_INTERVAL = f"{LEVEL:.0%} Wilson score"
"""Name of the intervals of shares in files."""

TOLERANCES = (6, 12, 24)
"""Months for which the share of errors up to that size is reported."""

ENOUGH_FOR_INTERVAL = 20
"""Least number of radiographs for which the interval of a mean is shown.

Bootstrap intervals of fewer are too narrow: those said to be of 95 % contained the mean of 81 % of
simulated half-normal samples with five values, 87 % with ten and 92 % with 20.
"""

# Indices drawn per step of the bootstrap: 8 MB, independent of the number of radiographs.
_INDICES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval; as text ``4.16 (3.70 to 4.65)``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The value and its interval, to two decimals."""
        return self.text()

    def text(self, scale: float = 1, sign: str = "") -> str:
        """Formats the value and its interval with two decimals.

        Args:
            scale: Factor of all three, 100 for per cent.
            sign: ``+`` to show the sign of numbers above zero, too.
        """
        ends = (decimal(scale * end, 2, sign) for end in (self.value, self.low, self.high))
        return "{} ({} to {})".format(*ends)

    def text_of(self, images: int, scale: float = 1, sign: str = "") -> str:
        """Returns ``text``, without the interval if there are too few images for one."""
        if images < ENOUGH_FOR_INTERVAL:
            return decimal(scale * self.value, 2, sign)
        return self.text(scale, sign)

    def columns(self, name: str) -> dict[str, float]:
        """Returns the cells of a table: ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    @property
    def percent(self) -> str:
        """A share and its interval as text, ``93.1% (91.0 to 95.0)``."""
        value, low, high = (100 * share for share in (self.value, self.low, self.high))
        return f"{value:.1f}% ({low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class Metrics:
    """The error metrics of one group of radiographs, in months unless stated otherwise.

    Attributes:
        images: Number of radiographs.
        mae: Mean absolute error.
        median_absolute_error: Median of the absolute errors.
        rmse: Root of the mean square error.
        bias: Mean of predicted − known age; above zero the model overestimates ages.
        within: Share (0–1) of absolute errors up to each of ``TOLERANCES``.
        correlation: Pearson's coefficient; None if known or predicted ages do not vary.
        r_squared: Explained share of the variance of known ages, 1 − mean square error / variance;
            below zero if predicting the mean age is better, None if known ages do not vary.
    """

    images: int
    mae: Estimate
    median_absolute_error: float
    rmse: float
    bias: Estimate
    within: dict[int, float]
    correlation: float | None
    r_squared: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics as JSON types, with keys such as ``within_6_months``."""
        values = asdict(self)
        within = values.pop("within")
        return values | {f"within_{months}_months": share for months, share in within.items()}


def compute_metrics(true: np.ndarray, predicted: np.ndarray) -> Metrics:
    """Computes the error metrics of predicted ages.

    Args:
        true: Known ages in months, shape (n,), n ≥ 1.
        predicted: Predicted ages in months, shape (n,).
    """
    errors = np.asarray(predicted, float) - np.asarray(true, float)
    absolute, square = np.abs(errors), float((errors**2).mean())
    varies = np.ptp(true) > 0 and np.ptp(predicted) > 0
    return Metrics(
        images=len(errors),
        mae=mean_interval(absolute),
        median_absolute_error=float(np.median(absolute)),
        rmse=square**0.5,
        bias=mean_interval(errors),
        within={months: float((absolute <= months).mean()) for months in TOLERANCES},
        correlation=float(np.corrcoef(true, predicted)[0, 1]) if varies else None,
        r_squared=1 - square / float(np.var(true)) if np.ptp(true) > 0 else None,
    )


def mean_interval(values: np.ndarray, *, resamples: int = RESAMPLES) -> Estimate:
    """Returns the mean with its percentile bootstrap interval.

    Args:
        values: One per radiograph, shape (n,), n ≥ 1.
        resamples: Number of bootstrap resamples.
    """
    values = np.asarray(values, float)
    random = np.random.default_rng(0)
    step = max(1, _INDICES_AT_ONCE // len(values))
    means = np.concatenate(
        [
            values[
                random.integers(len(values), size=(min(step, resamples - done), len(values)))
            ].mean(axis=1)
            for done in range(0, resamples, step)
        ]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


def share_interval(right: np.ndarray) -> Estimate:
    """Returns a share with its 95 % interval (Wilson, J Am Stat Assoc 1927;22:209–212).

    Args:
        right: Whether each of n predictions is right, (n,), n ≥ 1.
    """
    count, share = len(right), float(np.mean(right))
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = share + z**2 / (2 * count)
    half = z * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    low, high = ((middle + sign * half) / (1 + z**2 / count) for sign in (-1, 1))
    # Where none or all are right, rounding errors could put the ends outside 0 to 1.
    return Estimate(share, max(0.0, min(low, share)), min(1.0, max(high, share)))
