"""Conversion of sexes from and to table letters, and from probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np


def sex_letter(male: bool) -> str:
    """Returns the letter for a sex in tables, M or F."""
    return "M" if male else "F"


def male_of(letter: object) -> bool | None:
    """Returns True for M, False for F and None for anything else."""
    return {"M": True, "F": False}.get(str(letter))


@overload
def says_boy(male_probability: float) -> bool: ...


@overload
def says_boy(male_probability: np.ndarray) -> np.ndarray: ...


def says_boy(male_probability: Any) -> Any:
    """Whether the probability of being a boy is above 0.5; element-wise for arrays."""
    return male_probability > 0.5
