"""The kinds of things that an audit of a data set finds, how grave each is, and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from boneage_cli.ages import OLDEST_BONE_AGE

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


class Kind(NamedTuple):
    """A kind of finding."""

    severity: str
    remedy: str


KINDS = {
    # Must be fixed: training, evaluating or predicting would fail or give wrong numbers.
    "incomplete": Kind(ERROR, "run the same 'boneage fetch' again: it does what is missing"),
    "no-rows": Kind(ERROR, "fetch the data set again, or delete the empty file"),
    "row-length": Kind(ERROR, "give the row one value per column; quote values that hold a comma"),
    "wrong-split": Kind(ERROR, "move the row to the file of its split, or correct the split"),
    "id-missing": Kind(ERROR, "give the row the id of its radiograph"),
    "id-conflict": Kind(ERROR, "keep the row with the right label"),
    "id-in-two-splits": Kind(ERROR, "keep it in one split, or the score is no fair test"),
    "patient-in-two-splits": Kind(ERROR, "keep a child's radiographs in one split"),
    "boneage-missing": Kind(ERROR, "fill in the bone age in months, or delete the row"),
    "boneage-nan": Kind(ERROR, "fill in the bone age in months, or delete the row"),
    "boneage-infinite": Kind(ERROR, "fill in the bone age in months, or delete the row"),
    "boneage-not-a-number": Kind(ERROR, "write the bone age as a number of months, such as 126.5"),
    "boneage-impossible": Kind(
        ERROR, f"a bone age lies above 0 and up to {OLDEST_BONE_AGE:.0f} months"
    ),
    "sex-unreadable": Kind(ERROR, "write True for a boy, False for a girl, nothing if unknown"),
    "label-version-wrong": Kind(ERROR, "correct label_version in SOURCE.json, or fetch again"),
    "size-unreadable": Kind(ERROR, "write the original's width and height in pixels, or nothing"),
    "path-missing": Kind(ERROR, "give the row the path of its image"),
    "file-missing": Kind(ERROR, "put the image back, or delete the row"),
    "file-unreadable": Kind(ERROR, "fetch or export the image again, or delete the row"),
    "constant": Kind(ERROR, "fetch or export the image again, or delete the row"),
    "same-file": Kind(ERROR, "correct the path: two ids cannot share one image"),
    "same-pixels-in-two-splits": Kind(ERROR, "keep it in one split, or the score is no fair test"),
    # Worth a look: it may be right.
    "source-unreadable": Kind(WARNING, "fetch the data set again"),
    "id-repeated": Kind(WARNING, "delete one of the rows: the radiograph counts twice"),
    "boneage-in-years": Kind(WARNING, "multiply the bone ages by 12 if they are years"),
    "boneage-unknown": Kind(WARNING, "'predict' works without bone ages, 'evaluate' needs them"),
    "sex-missing": Kind(WARNING, "fill in the sex, or train with --no-gender"),
    "sex-imbalance": Kind(WARNING, "report errors by sex, or add radiographs of the rarer sex"),
    "same-pixels": Kind(WARNING, "delete one of the rows: the radiograph counts twice"),
    "file-unnamed": Kind(WARNING, "add a row for it, or move it away: nothing uses it"),
    "tiny": Kind(WARNING, "export the radiograph at its full size"),
    "extreme-aspect": Kind(WARNING, "look at it: a strip seldom shows a whole hand"),
    "very-dark": Kind(WARNING, "look at it: CLAHE or a foreground crop may help"),
    "faint": Kind(WARNING, "look at it: CLAHE may help"),
    "bright-surround": Kind(WARNING, "look at it: invert it if bone is dark, else crop the frame"),
    # Good to know.
    "label-version": Kind(NOTE, "name it beside every error measured on the test split"),
    "few-young": Kind(NOTE, "expect larger errors there; 'evaluate' reports them by age"),
    "no-source": Kind(NOTE, "'boneage fetch' writes where data come from and on what terms"),
}
"""Every kind, gravest first. An error makes ``boneage check-data`` exit with status 1."""


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set.

    Attributes:
        kind: One of ``KINDS``.
        message: What was found, with its numbers.
        split: The split concerned, empty for the whole data set.
        id: The radiograph's id, empty where no single one is concerned.
        path: The image or label file.
        row: Line in ``<split>.csv``, the header being line 1.
    """

    kind: str
    message: str
    split: str = ""
    id: str = ""
    path: str = ""
    row: int | None = None

    @property
    def severity(self) -> str:
        """One of ``SEVERITIES``."""
        return KINDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """The way out."""
        return KINDS[self.kind].remedy

    def text(self, folder: Path) -> str:
        """One line: label file and line, id, image below ``folder``, message."""
        path, folder = Path(self.path), folder.absolute()
        place = f"{self.split}.csv:{self.row}" if self.row else self.split
        # An image is usually called after its id, and a reader's message names its file already.
        name = "" if path.stem == self.id else self.id
        below = path.relative_to(folder) if path.is_relative_to(folder) else path
        shown = "" if not self.path or self.path in self.message else str(below)
        return ": ".join(part for part in (place, name, shown, self.message) if part)
