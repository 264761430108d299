"""The kinds of findings of a data set's audit, with their severities and remedies."""

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
    "incomplete": Kind(ERROR, "run the same 'boneage fetch' again; it completes what is missing"),
    "no-rows": Kind(ERROR, "fetch the data set again, or delete the empty file"),
    "row-length": Kind(
        ERROR, "give the row one value per column; quote values that contain a comma"
    ),
    "wrong-split": Kind(ERROR, "move the row to the file of its split, or correct the split"),
    "id-missing": Kind(ERROR, "add the id of the radiograph to the row"),
    "id-conflict": Kind(ERROR, "keep only the row with the correct label"),
    "id-in-two-splits": Kind(ERROR, "keep it in one split only, or the evaluation will be biased"),
    "patient-in-two-splits": Kind(ERROR, "keep all radiographs of a child in one split"),
    "patient-of-both-sexes": Kind(ERROR, "correct the sex, or the id of the patient"),
    "boneage-missing": Kind(ERROR, "enter the bone age in months, or delete the row"),
    "boneage-nan": Kind(ERROR, "enter the bone age in months, or delete the row"),
    "boneage-infinite": Kind(ERROR, "enter the bone age in months, or delete the row"),
    "boneage-not-a-number": Kind(ERROR, "write the bone age as a number of months, such as 126.5"),
    "boneage-impossible": Kind(
        ERROR, f"bone ages must be above 0 and up to {OLDEST_BONE_AGE:.0f} months"
    ),
    "sex-unreadable": Kind(ERROR, "write True for a boy, False for a girl, or leave it empty"),
    "label-version-wrong": Kind(ERROR, "correct label_version in SOURCE.json, or fetch again"),
    "size-unreadable": Kind(
        ERROR, "enter the original width and height in pixels, or leave it empty"
    ),
    "path-missing": Kind(ERROR, "add the path of the image to the row"),
    "file-missing": Kind(ERROR, "restore the image, or delete the row"),
    "file-unreadable": Kind(ERROR, "fetch or export the image again, or delete the row"),
    "constant": Kind(ERROR, "fetch or export the image again, or delete the row"),
    "same-file": Kind(ERROR, "correct the path: two ids cannot share one image"),
    "same-pixels-in-two-splits": Kind(
        ERROR, "keep it in one split only, or the evaluation will be biased"
    ),
    # Worth a look: it may be right.
    "source-unreadable": Kind(WARNING, "fetch the data set again"),
    "id-repeated": Kind(WARNING, "delete one of the rows, or the radiograph will count twice"),
    "boneage-in-years": Kind(WARNING, "if the bone ages are in years, multiply them by 12"),
    "boneage-unknown": Kind(
        WARNING, "'boneage predict' works without bone ages, 'evaluate' needs them"
    ),
    "sex-missing": Kind(WARNING, "enter the sex, or train with --no-gender"),
    "sex-imbalance": Kind(WARNING, "report errors by sex, or add radiographs of the rarer sex"),
    "same-pixels": Kind(WARNING, "delete one of the rows, or the radiograph will count twice"),
    "file-unnamed": Kind(WARNING, "add a row for it, or remove it: it is not used"),
    "tiny": Kind(WARNING, "export the radiograph at full resolution"),
    "extreme-aspect": Kind(WARNING, "look at the image: a strip rarely shows a whole hand"),
    "very-dark": Kind(WARNING, "look at the image, and check the export and window settings"),
    "faint": Kind(WARNING, "look at the image, and check the export and window settings"),
    "bright-surround": Kind(
        WARNING, "look at the image: invert it if bone is dark, else crop the frame"
    ),
    # For information.
    "label-version": Kind(NOTE, "state it with every error measured on the test split"),
    "few-young": Kind(NOTE, "figures for young children will rest on few radiographs"),
    "no-source": Kind(NOTE, "'boneage fetch' records where data come from and under which terms"),
}
"""Every kind, most severe first. An error makes ``boneage check-data`` exit with status 1."""


@dataclass(frozen=True)
class Finding:
    """One finding about a data set.

    Attributes:
        kind: One of ``KINDS``.
        message: Description with the relevant numbers.
        split: The split concerned; empty for the whole data set.
        id: The radiograph's id; empty if the finding is not about a single radiograph.
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
        """How to fix it."""
        return KINDS[self.kind].remedy

    def text(self, folder: Path) -> str:
        """Formats one line: label file and line, id, image path below ``folder``, message."""
        path, folder = Path(self.path), folder.absolute()
        place = f"{self.split}.csv:{self.row}" if self.row else self.split
        # An image is usually named after its id, and read errors already name the file.
        name = "" if path.stem == self.id else self.id
        below = path.relative_to(folder) if path.is_relative_to(folder) else path
        shown = "" if not self.path or self.path in self.message else str(below)
        return ": ".join(part for part in (place, name, shown, self.message) if part)
