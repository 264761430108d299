"""The bands of bone age by which errors and intervals are reported."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from boneage_cli.ages import MONTHS_PER_YEAR

_STARTS = (0, 5, 10, 15)
AGE_BANDS = (
    *(f"{low}–{high} years" for low, high in pairwise(_STARTS)),
    f"{_STARTS[-1]} years and more",
)
"""Names of the bands, youngest first; each includes its lower end and excludes its upper end."""


def band_numbers(months: np.ndarray | float) -> np.ndarray:
    """Indices into ``AGE_BANDS`` of ages in months, same shape; negative ages are in the first."""
    numbers = np.searchsorted(_STARTS, np.asarray(months) / MONTHS_PER_YEAR, side="right") - 1
    return np.maximum(numbers, 0)
