"""Prediction intervals that contain the known age as often as their level states.

Split conformal prediction (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, arXiv:1604.04173) within
groups (Mondrian): the half width of an interval is a quantile of the absolute errors on radiographs
that the model was not trained on, of the same sex and of similar predicted age. The known age of
another such radiograph is then inside with the chosen probability, for any distribution of errors.
If the kept epoch was chosen on the same radiographs (training.keep), their errors, and so the
intervals, are slightly smaller than on others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_cli.core.age_bands import AGE_BANDS, band_numbers
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.sexes import male_of, sex_letter

if TYPE_CHECKING:
    import pandas as pd

LEVELS = tuple(range(50, 100))
"""Levels in percent for which half widths are stored."""

COVERAGE = "coverage.csv"
"""File name of the coverage of 90 % intervals on radiographs that they were not calibrated on."""

# Number of parts that are held out in turn to measure the coverage.
_PARTS = 10

LEAST_TO_CALIBRATE = 40
"""Minimum number of radiographs in a group; smaller groups use the width of a larger group."""


@dataclass(frozen=True)
class Calibration:
    """Half widths of intervals by sex and band of predicted age.

    Attributes:
        widths: For each group the half width in months at each of ``LEVELS``, None at levels that
            need more radiographs than it has. Groups are named ``F 5–10 years``, ``F`` (all
            girls), ``5–10 years`` (both sexes) and ``all``.
        images: Number of radiographs in each group.
        source: Description of these radiographs.
    """

    widths: dict[str, tuple[float | None, ...]]
    images: dict[str, int]
    source: str

    def half_width(self, months: float, male: bool | None, level: int) -> float:
        """Returns the half width of the interval of one prediction, months.

        Args:
            months: The predicted age.
            male: The child's sex; None if unknown.
            level: Per cent, one of ``LEVELS``.

        Raises:
            BoneageError: There is no such level, or too few radiographs for it.
        """
        check_level(level)
        least = 0.0
        for name in _groups(months, male):
            widths = self.widths.get(name, ())[: level - LEVELS[0] + 1]
            if widths and widths[-1] is not None:
                return max(widths[-1], least)
            # Falling back to a larger group must not make it narrower than at a lower level.
            least = max(least, *(width for width in widths if width is not None), 0.0)
        raise self._too_few(level)

    def check(self, level: int) -> None:
        """Refuses a level at which some predictions would have no interval.

        Raises:
            BoneageError: There is no such level, or too few radiographs for it.
        """
        check_level(level)
        # The last fallback of every prediction is one of these groups.
        widest = ["all"] if "all" in self.widths else ["F", "M"]
        if any(
            self.widths[name][level - LEVELS[0]] is None for name in widest if name in self.widths
        ):
            raise self._too_few(level)

    def _too_few(self, level: int) -> BoneageError:
        return BoneageError(
            f"--interval {level}: the model was calibrated on too few radiographs for it "
            f"({self.source}); choose a lower level"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the calibration as JSON types."""
        widths = {
            group: [None if width is None else round(width, 3) for width in values]
            for group, values in self.widths.items()
        }
        return {
            "levels": [LEVELS[0], LEVELS[-1]],
            "half_widths": widths,
            "images": self.images,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Reads the result of ``to_dict``.

        Raises:
            ValueError: Its levels are not ``LEVELS``.
        """
        if values["levels"] != [LEVELS[0], LEVELS[-1]]:
            raise ValueError(f"intervals of {values['levels']} per cent, which are not known here")
        widths = {group: tuple(width) for group, width in values["half_widths"].items()}
        return cls(widths, dict(values["images"]), values["source"])


def check_level(level: int) -> None:
    """Refuses a level for which no half widths are stored.

    Raises:
        BoneageError: The level is not in ``LEVELS``.
    """
    if level not in LEVELS:
        raise _no_such_level(level)


def parse_level(text: str) -> int:
    """Reads a level in per cent: ``90`` or ``90%``.

    Raises:
        BoneageError: The text is not one of ``LEVELS``.
    """
    levels = {str(level): level for level in LEVELS}
    number = text.strip().removesuffix("%").rstrip()
    if number not in levels:
        raise _no_such_level(text)
    return levels[number]


def _no_such_level(level: object) -> BoneageError:
    return BoneageError(
        f"--interval {level}: choose a whole per cent from {LEVELS[0]} to {LEVELS[-1]}, such as 90"
    )


def calibrate(predictions: pd.DataFrame, source: str) -> Calibration:
    """Measures half widths on radiographs that the model was not trained on.

    Args:
        predictions: Rows with ``true`` and ``predicted`` in months and ``sex`` (M, F or empty).
        source: Description of the radiographs.

    Raises:
        BoneageError: There are too few radiographs.
    """
    known = predictions[predictions["predicted"].notna()]
    if len(known) < LEAST_TO_CALIBRATE:
        raise BoneageError(
            f"{len(known)} radiographs are too few to calibrate intervals on; "
            f"{LEAST_TO_CALIBRATE} are needed"
        )
    errors: dict[str, list[float]] = {}
    for true, predicted, sex in zip(known["true"], known["predicted"], known["sex"], strict=True):
        for group in _groups(predicted, male_of(sex)):
            errors.setdefault(group, []).append(abs(predicted - true))
    large = {
        group: np.sort(found) for group, found in errors.items() if len(found) >= LEAST_TO_CALIBRATE
    }
    return Calibration(
        widths={group: _quantiles(found) for group, found in large.items()},
        images={group: len(found) for group, found in large.items()},
        source=source,
    )


def calibration_of(predictions: pd.DataFrame, which: str) -> Calibration | None:
    """Returns the same as ``calibrate``, and None if there are too few radiographs.

    Args:
        predictions: As for ``calibrate``.
        which: What follows "n radiographs" in their description.
    """
    count = int(predictions["predicted"].notna().sum())
    return (
        calibrate(predictions, f"{count} radiographs{which}")
        if count >= LEAST_TO_CALIBRATE
        else None
    )


def coverage(
    predictions: pd.DataFrame, parts: np.ndarray, level: int
) -> dict[str, tuple[int, float, float]]:
    """Measures the coverage of intervals on radiographs that they were not calibrated on.

    Args:
        predictions: As in ``calibrate``.
        parts: The part (fold) of each row, (n,); the intervals of a part are calibrated on all
            others.
        level: Per cent.

    Returns:
        For ``all``, each sex, each band of predicted age, and each sex in each band: the number of
        radiographs, the share (0–1) whose known age is inside the interval, and the mean width in
        months. Empty if there are too few radiographs to calibrate on.
    """
    known = predictions["predicted"].notna().to_numpy()
    predictions, parts = predictions[known], parts[known]
    if min((parts != part).sum() for part in np.unique(parts)) < LEAST_TO_CALIBRATE:
        return {}
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for part in np.unique(parts):
        calibration = calibrate(predictions[parts != part], "")
        for row in predictions[parts == part].itertuples():
            male = male_of(row.sex)
            half = calibration.half_width(float(row.predicted), male, level)
            for group in _groups(float(row.predicted), male):
                held.setdefault(group, []).append(abs(row.predicted - row.true) <= half)
                widths.setdefault(group, []).append(2 * half)
    sexes = ["F", "M"]
    named = ["all", *sexes, *AGE_BANDS, *(f"{sex} {band}" for sex in sexes for band in AGE_BANDS)]
    order = [group for group in named if group in held]
    return {
        group: (len(held[group]), float(np.mean(held[group])), float(np.mean(widths[group])))
        for group in order
    }


def random_parts(count: int) -> np.ndarray:
    """Returns a random part (0–9) for each radiograph, (count,); the same at each call."""
    return np.random.default_rng(0).permutation(count) % _PARTS


def write_coverage(predictions: pd.DataFrame, path: Path, parts: np.ndarray | None = None) -> None:
    """Writes the coverage of 90 % intervals as CSV: group, images, share, mean width.

    Args:
        predictions: As in ``calibrate``; if there are too few, nothing is written.
        path: The file.
        parts: As in ``coverage``; None for ten random parts.

    Raises:
        OSError: The file cannot be written.
    """
    import pandas as pd

    parts = random_parts(len(predictions)) if parts is None else parts
    found = coverage(predictions, parts, 90)
    if not found:
        return
    table = pd.DataFrame(
        [(group, *figures) for group, figures in found.items()],
        columns=["group", "images", "share_held", "mean_width"],
    )
    write_csv(table.round(4), path)


def _quantiles(errors: np.ndarray) -> tuple[float | None, ...]:
    # Of n + 1 errors, one is that of the radiograph to be predicted.
    count = len(errors)
    ranks = (math.ceil((count + 1) * level / 100) for level in LEVELS)
    return tuple(float(errors[rank - 1]) if rank <= count else None for rank in ranks)


def _groups(months: float, male: bool | None) -> list[str]:
    """Returns the groups of a prediction, the narrowest first."""
    band = AGE_BANDS[int(band_numbers(months))]
    sex = [] if male is None else [sex_letter(male)]
    return [*(f"{letter} {band}" for letter in sex), band, *sex, "all"]
