"""Inputs and results of a predictor as plain records, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_cli.ages import doubt_of_age, look_like_other_units
from boneage_cli.core.prediction.deviation_score import deviation_score
from boneage_cli.datasets.manifest import true_aspects
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.sexes import says_boy, sex_letter

if TYPE_CHECKING:
    import pandas as pd

REASONS = {
    "no-hand": "no hand was found",
    "fingers-cut-off": "the fingertips are cut off",
    "wrist-cut-off": "the wrist is cut off",
    "two-hands": "there is another hand beside it",
    "unlike-training": "it looks unlike every radiograph that the model was trained on",
}
"""Why an image is refused, unless a prediction is forced: code and sentence of each reason."""
FAILURES = {
    "unreadable": "the file is missing, damaged, or of a kind that is not read",
    "no-image": "a DICOM file of something else, such as a report",
    "bad-input": "a table's row, a list or a folder makes no sense",
    "sex-unknown": "the model needs the child's sex, and nothing tells it",
    "other-sex": "the model was trained on the other sex",
    "no-number": "the network gave no number",
}
"""Why no prediction is possible, even if forced: code and sentence of each failure."""
NO_NUMBER = FAILURES["no-number"]
"""The error of a radiograph for which a network's output is infinite or NaN."""
# Beyond it, a wrong age or sex is likelier than such a child; WHO's limit for scores of heights.
_LARGEST_SDS = 6.0


@dataclass(frozen=True)
class Case:
    """One radiograph to predict.

    Attributes:
        path: The image file.
        male: The child's sex; None to take it from the file.
        aspect: Width divided by height of the original, if the stored image was squashed.
        id: The image's id in a table, if any.
        age: The child's chronological age in months; None to take it from the file.
        known: The known bone age in months, if the table has one.
        error: Why the table row is invalid; the prediction then consists of this error.
        tags: Keywords of DICOM elements whose values the prediction includes.
        searched_for: Whether it was found by searching a folder, rather than named.
    """

    path: str
    male: bool | None = None
    aspect: float | None = None
    id: str | None = None
    age: float | None = None
    known: float | None = None
    error: str | None = None
    tags: tuple[str, ...] = ()
    searched_for: bool = False

    def read(self) -> Radiograph:
        """Reads the radiograph, with ``aspect`` if that is given.

        Raises:
            BoneageError: The table row is invalid, or the file cannot be read.
        """
        if self.error is not None:
            raise BoneageError(self.error)
        return read_radiograph(self.path, aspect=self.aspect, tags=self.tags)


@dataclass(frozen=True)
class Asked:
    """What is asked of predictions.

    Attributes:
        tta: Whether to average over mirrored and slightly rotated views.
        interval: Level of the prediction intervals, per cent; None for no intervals.
        force: Whether to predict refused images, too.
    """

    tta: bool = False
    interval: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Prediction:
    """The prediction for one radiograph.

    Attributes:
        case: The input.
        months: Bone age in months; None if there is none.
        male: The sex that the model used; None if it uses none.
        error: Why there is no prediction.
        stated: The sex stated in the file, True for male; None if there is none.
        interval: Lower and upper end of the prediction interval in months, if requested.
        age: The child's chronological age in months, if known.
        age_doubt: That of the file, see ``Radiograph``.
        reason: Why there is no prediction, a code of ``REASONS`` or ``FAILURES``; None if there is
            no objection. With a code of ``REASONS``, a forced prediction is present.
        male_probability: The probability of being a boy; None if no model predicts sex.
        laterality: ``L`` or ``R`` as stated in the file; None if it states none.
        tags: Values of the DICOM elements that the case requested, by keyword.
        picture: Path of the picture that explains it; None if there is none.
    """

    case: Case
    months: float | None
    male: bool | None = None
    error: str | None = None
    stated: bool | None = None
    interval: tuple[float, float] | None = None
    age: float | None = None
    age_doubt: str | None = None
    reason: str | None = None
    male_probability: float | None = None
    laterality: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)
    picture: str | None = None

    @property
    def refusal(self) -> str | None:
        """The code of ``REASONS`` for which the image is refused; None for other failures."""
        return self.reason if self.reason in REASONS else None

    @property
    def sds(self) -> float | None:
        """Standard deviation score of the bone age, to two decimals.

        None if bone age, chronological age or sex is unknown, if the ages look like different
        units, or outside the reference's ages.
        """
        male = self.known_male
        if self.months is None or self.age is None or male is None:
            return None
        if look_like_other_units(self.age, self.months):
            return None
        score = deviation_score(self.months, self.age, male)
        return None if score is None else round(score, 2)

    @property
    def warning(self) -> str | None:
        """Contradictions on the sex or the age, or None.

        Those that affect neither the prediction nor the known age are not reported.
        """
        found = [self._doubt_of_sex(), self._doubt_of_age()]
        return "; ".join(text for text in found if text) or None

    def _doubt_of_sex(self) -> str | None:
        scored = self.age is not None and self.months is not None
        # Models that do not use the sex: it still matters if a standard deviation score or a
        # predicted sex is shown.
        shown = scored or self.male_probability is not None
        used = self.known_male if shown else self.male
        if used is not None and self.stated not in (None, used):
            return f"taken as {sex_letter(used)}, but it says {sex_letter(not used)}"
        return None

    def _doubt_of_age(self) -> str | None:
        if self.age is None and self.age_doubt is not None:
            return f"age unknown: {self.age_doubt}; name it in a table (column age_months)"
        if self.age is None or self.months is None:
            return None
        if doubt := doubt_of_age(self.age, self.months):
            return doubt
        if self.sds is not None and abs(self.sds) > _LARGEST_SDS:
            return f"SDS {self.sds:+.1f} is beyond ±{_LARGEST_SDS:g}: check the age and the sex"
        return None

    @property
    def known_male(self) -> bool | None:
        """The child's sex, whether or not the model uses it; None if unknown."""
        told = (self.male, self.case.male, self.stated)
        return next((male for male in told if male is not None), None)

    @property
    def complaint(self) -> str | None:
        """The error, with the file's name in front if it is not there already."""
        path = self.case.path
        if self.error is None or self.error.startswith((f"{path}:", f"{Path(path)}:")):
            return self.error
        return f"{path}: {self.error}"

    @property
    def predicted_male(self) -> bool | None:
        """The predicted sex; None if no model predicts sex."""
        return None if self.male_probability is None else says_boy(self.male_probability)


def manifest_cases(manifest: pd.DataFrame) -> Iterator[Case]:
    """Yields the rows of a manifest as cases, with sex, and true aspect if the size is known."""
    males = manifest["male"].astype(object).where(manifest["male"].notna(), None)
    rows = zip(manifest["id"], manifest["path"], males, true_aspects(manifest), strict=True)
    for identity, path, male, aspect in rows:
        yield Case(path=path, male=None if male is None else bool(male), aspect=aspect, id=identity)
