"""What is asked of a predictor, and what it answers: plain records, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_cli.ages import doubt_of_age
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
"""Why an image is refused, unless an answer is forced: each reason's code and sentence."""
FAILURES = {
    "unreadable": "the file is missing, damaged, or of a kind that is not read",
    "no-image": "a DICOM file of something else, such as a report",
    "bad-input": "a table's row, a list or a folder makes no sense",
    "sex-unknown": "the model needs the child's sex, and nothing tells it",
    "other-sex": "the model was trained on the other sex",
    "no-number": "the network gave no number",
}
"""Why there can be no answer, whatever is forced: each code and sentence."""
NO_NUMBER = FAILURES["no-number"]
"""The error of a radiograph of which a network makes an infinite age, or none."""


@dataclass(frozen=True)
class Case:
    """One radiograph to predict.

    Attributes:
        path: The image file.
        male: The child's sex; None to take what the file says.
        aspect: Width by height of the original, where the stored image was squashed.
        id: The image's name in a table, where it has one.
        age: The child's chronological age in months; None to take what the file says.
        known: The bone age that somebody read, in months, where a table tells it.
        error: What is wrong with what was said of it; it is answered with that alone.
        tags: Keywords of DICOM elements whose values the answer is to have.
        searched_for: Whether it was found in a folder, and not named.
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
        """The radiograph, in the proportions that were told.

        Raises:
            BoneageError: What was said of it is wrong, or the file cannot be read.
        """
        if self.error is not None:
            raise BoneageError(self.error)
        return read_radiograph(self.path, aspect=self.aspect, tags=self.tags)


@dataclass(frozen=True)
class Prediction:
    """The answer for one radiograph.

    Attributes:
        case: What was asked.
        months: Bone age in months; None where there is none.
        male: The sex that was used; None where the model uses none.
        error: Why there is no answer.
        stated: The sex that the file itself states, True for male; None where it states none.
        interval: The lower and upper end of the prediction interval in months, where one is wanted.
        age: The child's chronological age in months, where it is known.
        reason: Why there is no answer, a code of ``REASONS`` or ``FAILURES``; None where nothing
            speaks against it. There is an answer to one of ``REASONS`` where one was forced.
        male_probability: That this is a boy's hand, by models that predict sex; None without.
        laterality: ``L`` or ``R`` as the file states it; None where it states none.
        tags: The DICOM elements that the case asked for, by keyword.
    """

    case: Case
    months: float | None
    male: bool | None = None
    error: str | None = None
    stated: bool | None = None
    interval: tuple[float, float] | None = None
    age: float | None = None
    reason: str | None = None
    male_probability: float | None = None
    laterality: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """The code of ``REASONS`` that speaks against an answer; None of other failures."""
        return self.reason if self.reason in REASONS else None

    @property
    def warning(self) -> str | None:
        """How what was said of a child contradicts its file or its bone age; None where not.

        What matters to no part of the answer is left alone.
        """
        scored = self.age is not None and self.months is not None
        # A model without sex leaves it to the standard deviation score, or to be compared with.
        shown = scored or self.male_probability is not None
        used = self.known_male if shown else self.male
        if used is not None and self.stated not in (None, used):
            return f"taken as {sex_letter(used)}, but it says {sex_letter(not used)}"
        if self.age is not None and self.months is not None:
            return doubt_of_age(self.age, self.months)
        return None

    @property
    def known_male(self) -> bool | None:
        """The child's sex, whether the model uses it or not; None where nobody tells it."""
        told = (self.male, self.case.male, self.stated)
        return next((male for male in told if male is not None), None)

    @property
    def complaint(self) -> str | None:
        """The error as a line that names the file; errors of reading do so already."""
        path = self.case.path
        if self.error is None or self.error.startswith((f"{path}:", f"{Path(path)}:")):
            return self.error
        return f"{path}: {self.error}"

    @property
    def predicted_male(self) -> bool | None:
        """The likelier sex; None by models that predict none."""
        return None if self.male_probability is None else says_boy(self.male_probability)


def manifest_cases(manifest: pd.DataFrame) -> Iterator[Case]:
    """Yields the rows of a manifest as cases: sex, and the true aspect where the size is known."""
    males = manifest["male"].astype(object).where(manifest["male"].notna(), None)
    rows = zip(manifest["id"], manifest["path"], males, true_aspects(manifest), strict=True)
    for identity, path, male, aspect in rows:
        yield Case(path=path, male=None if male is None else bool(male), aspect=aspect, id=identity)
