"""Metrics of ages or sexes over all radiographs, by sex and by band of known bone age."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd

from boneage_cli.core.age_bands import AGE_BANDS, band_numbers
from boneage_cli.errors import BoneageError

M = TypeVar("M")


@dataclass(frozen=True)
class GroupedMetrics(Generic[M]):
    """Metrics of a model on labelled radiographs.

    Attributes:
        predictions: One row per labelled radiograph, with an ``error`` where one failed.
        overall: The metrics over all radiographs.
        by_sex: The same for ``girls`` and ``boys``, where there are any.
        by_age: The same for each of ``AGE_BANDS`` in which there are any.
        baseline: The prediction, or the accuracy, of a model that ignores the image.
        unlabelled: Number of radiographs without a label, which were left out.
        refused: How many ``predict`` would refuse, by reason; the metrics include them. None where
            this was not evaluated.
        about: What identifies the model and the data.
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
        """The metrics of each group by its name, ``all`` first."""
        return {"all": self.overall, **self.by_sex, **self.by_age}

    @property
    def failed(self) -> int:
        """Number of radiographs that could not be predicted; the metrics leave them out."""
        return int(self.predictions[self.answer].isna().sum())

    def as_json(self, to_dict: Callable[[M], dict[str, Any]]) -> dict[str, Any]:
        """Returns the metrics as JSON types, ``about`` first.

        Args:
            to_dict: Converts the metrics of one group.
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
    """Returns the metrics of each group that has any radiograph.

    Args:
        groups: Names, and which of n radiographs belong to each, bool (n,).
        compute: Computes the metrics of such rows.
    """
    return {name: compute(rows) for name, rows in groups if rows.any()}


def age_groups(ages: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each of ``AGE_BANDS`` and which ages are in it, bool (n,).

    Args:
        ages: Months, (n,); NaN for unknown ones, which are in no band.
    """
    numbers = np.where(np.isfinite(ages), band_numbers(ages), -1)
    for number, name in enumerate(AGE_BANDS):
        yield name, numbers == number


def nothing_known(what: str) -> BoneageError:
    """Returns the error that no radiograph has a label to compare with."""
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
