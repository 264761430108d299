"""What figures of ages and of sexes have in common: over all radiographs, by sex and by age."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd

from boneage_cli.ages import MONTHS_PER_YEAR
from boneage_cli.errors import BoneageError

AGE_BANDS = ((0, 5), (5, 10), (10, 15), (15, 19))
"""Bands of known bone age in years, without their upper end; the last holds all that is older."""

M = TypeVar("M")


@dataclass(frozen=True)
class GroupedFigures(Generic[M]):
    """What a model did on labelled radiographs.

    Attributes:
        predictions: One row per labelled radiograph, with an ``error`` where one failed.
        overall: The figures over all radiographs.
        by_sex: The same for ``girls`` and ``boys``, where there are any.
        by_age: The same for each band of ``AGE_BANDS`` that holds any.
        baseline: What a model without eyes says or has.
        unlabelled: Radiographs without a label, which were left out.
        refused: How many ``predict`` would refuse, by reason; they are in the figures all the same.
            None where that was not looked at.
        about: Whatever names the model and the data.
    """

    # The column of predictions that is empty where one failed.
    answer: ClassVar[str]

    predictions: pd.DataFrame
    overall: M
    by_sex: dict[str, M]
    by_age: dict[str, M]
    baseline: float
    unlabelled: int = 0
    refused: dict[str, int] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, M]:
        """The figures of each group by its name, ``all`` first."""
        return {"all": self.overall, **self.by_sex, **self.by_age}

    @property
    def failed(self) -> int:
        """Radiographs that could not be predicted, and are in none of the figures."""
        return int(self.predictions[self.answer].isna().sum())

    def as_json(self, to_dict: Callable[[M], dict[str, Any]]) -> dict[str, Any]:
        """The figures as JSON types, ``about`` first.

        Args:
            to_dict: Does the same with those of one group.
        """
        return {
            **self.about,
            **to_dict(self.overall),
            "failed": self.failed,
            "unlabelled": self.unlabelled,
            "refused": self.refused,
            "baseline": self.baseline,
            "by_sex": {name: to_dict(figures) for name, figures in self.by_sex.items()},
            "by_age": {name: to_dict(figures) for name, figures in self.by_age.items()},
        }


def grouped(
    groups: Iterable[tuple[str, np.ndarray]], compute: Callable[[np.ndarray], M]
) -> dict[str, M]:
    """The figures of each group that holds any radiograph.

    Args:
        groups: Names, and which of n radiographs each holds, (n,).
        compute: The figures of such rows.
    """
    return {name: compute(rows) for name, rows in groups if rows.any()}


def age_groups(ages: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each band of ``AGE_BANDS``, and which known ages (months, (n,)) are in it."""
    for low, high in AGE_BANDS:
        last = (low, high) == AGE_BANDS[-1]
        upper = math.inf if last else high * MONTHS_PER_YEAR
        yield f"{low}–{high} years", (ages >= low * MONTHS_PER_YEAR) & (ages < upper)


def nothing_known(what: str) -> BoneageError:
    """The error of radiographs of which nobody knows what is to be compared."""
    return BoneageError(
        f"no radiograph here has a known {what} to compare with; choose another --split, or run "
        "'boneage predict' instead"
    )


def none_predicted(count: int, reasons: Iterable[str]) -> BoneageError:
    """The error of so many radiographs of which none was predicted, with the first reason."""
    first = next(iter(reasons), None)
    return BoneageError(
        f"none of {count} radiographs could be predicted"
        + ("" if first is None else f"; the first: {first}")
    )
