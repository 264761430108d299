"""Sexes: as tables write them, and the one that a probability speaks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np


def sex_letter(male: bool) -> str:
    """A sex as tables have it, M or F."""
    return "M" if male else "F"


def male_of(letter: object) -> bool | None:
    """The sex that M or F stands for, True for male; None for whatever else stands there."""
    return {"M": True, "F": False}.get(str(letter))


@overload
def says_boy(male_probability: float) -> bool: ...


@overload
def says_boy(male_probability: np.ndarray) -> np.ndarray: ...


def says_boy(male_probability: Any) -> Any:
    """Which sex a probability of being a boy speaks for; of an array, each."""
    return male_probability > 0.5
