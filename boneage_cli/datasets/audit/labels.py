"""Checks of a data set's labels, for each cell and between rows.

The label files are read cell by cell, not with ``read_manifest``: that function raises on the first
invalid cell, but an audit must list all such cells with their lines.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.ages import is_bone_age, look_like_years
from boneage_cli.datasets.audit.findings import Finding
from boneage_cli.datasets.audit.image_statistics import ImageStatistics
from boneage_cli.datasets.label_version import RSNA_TEST_IDS, label_version
from boneage_cli.datasets.manifest import parse_male, parse_number, parse_size, read_cells
from boneage_cli.datasets.source import SOURCE_FILE, Source
from boneage_cli.datasets.tables import check_width
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted

# Distributions of fewer rows are not checked.
_ENOUGH_ROWS = 20
_RARE_SEX = 0.3
_RARE_YOUNG = 0.1
YOUNG = 60.0


@dataclass
class LabelledImage:
    """One row of a label file and the statistics of its image.

    Attributes:
        line: Line in ``<split>.csv``, the header being line 1.
        id: The radiograph's id; empty if missing.
        path: Absolute path of the image; empty if missing.
        split: One of ``SPLITS``.
        boneage: Months; None if missing or impossible.
        male: None if missing or unreadable.
        width: Width of the original radiograph in pixels; None if not in the table.
        height: Height of the original radiograph in pixels; None if not in the table.
        patient: The patient's id; empty if not in the table.
        statistics: None if the image was not read.
    """

    line: int
    id: str
    path: str
    split: str
    boneage: float | None = None
    male: bool | None = None
    width: float | None = None
    height: float | None = None
    patient: str = ""
    statistics: ImageStatistics | None = None

    def true_size(self, image: ImageStatistics) -> tuple[float, float]:
        """Returns the width and height of the original (pixels): the table's, else its image's."""
        if self.width and self.height:
            return self.width, self.height
        return image.true_size

    def finding(self, kind: str, message: str) -> Finding:
        """Returns a finding about this row."""
        return Finding(kind, message, self.split, self.id, self.path, self.line)


def read_labels(folder: Path, split: str) -> tuple[list[LabelledImage], list[Finding]]:
    """Reads one label file and reports every invalid cell.

    Args:
        folder: The data set's folder.
        split: The split whose ``<split>.csv`` is read.

    Returns:
        The rows, and the findings on each of them.

    Raises:
        BoneageError: The file is not a CSV with the columns of a manifest.
    """
    file = folder / f"{split}.csv"
    header, lines = read_cells(file)
    rows: list[LabelledImage] = []
    findings: list[Finding] = []
    for line, cells in lines:
        row, wrong = _read_row(header, cells, line, file)
        rows.append(row)
        findings += wrong
    if not rows:
        findings.append(Finding("no-rows", f"{file.name} holds no rows", split, path=str(file)))
    return rows, findings


def _read_row(
    header: Sequence[str], cells: Sequence[str], line: int, file: Path
) -> tuple[LabelledImage, list[Finding]]:
    text = dict(zip(header, cells, strict=False))
    row = LabelledImage(
        line=line,
        id=text["id"],
        path=os.path.normpath(file.parent.absolute() / text["path"]) if text["path"] else "",
        split=file.stem,
        patient=text.get("patient", ""),
    )
    findings = []
    try:
        check_width(f"{file.name}, line {line}", cells, len(header))
    except BoneageError:
        message = f"{len(cells)} values under {len(header)} columns"
        findings.append(row.finding("row-length", message))
    if not row.id:
        findings.append(row.finding("id-missing", "no id"))
    if not row.path:
        findings.append(row.finding("path-missing", "no path"))
    # An empty cell contradicts nothing.
    if text["split"] not in ("", row.split):
        findings.append(row.finding("wrong-split", f"split '{text['split']}' in {file.name}"))
    for side in ("width", "height"):
        try:
            setattr(row, side, parse_size(text.get(side, "")))
        except ValueError as error:
            findings.append(row.finding("size-unreadable", f"{side} {error}"))
    try:
        row.male = parse_male(text["male"])
        if row.male is None:
            findings.append(row.finding("sex-missing", "no sex"))
    except ValueError as error:
        findings.append(row.finding("sex-unreadable", f"sex {error}"))
    try:
        boneage = parse_number(text["boneage"])
    except ValueError as error:
        findings.append(row.finding("boneage-not-a-number", f"bone age {error}"))
    else:
        if boneage is not None and is_bone_age(boneage):
            row.boneage = boneage
        else:
            findings += _wrong_age(row, boneage, text["boneage"])
    return row, findings


def _wrong_age(row: LabelledImage, boneage: float | None, cell: str) -> Iterator[Finding]:
    if cell.lower() == "nan" or (boneage is not None and math.isnan(boneage)):
        yield row.finding("boneage-nan", f"bone age '{cell}'")
    elif boneage is None:
        # A test split without labels is common; it is reported once for the whole split.
        if row.split != "test":
            yield row.finding("boneage-missing", "no bone age")
    elif math.isinf(boneage):
        yield row.finding("boneage-infinite", f"bone age '{cell}'")
    else:
        yield row.finding("boneage-impossible", f"bone age {boneage:g} months")


def repeated_ids(rows: Sequence[LabelledImage]) -> Iterator[Finding]:
    """Yields findings on rows whose id occurs earlier in any split."""
    first: dict[str, LabelledImage] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other is row or not row.id:
            continue
        difference = label_difference(other, row)
        if other.split != row.split:
            yield row.finding(
                "id-in-two-splits", f"also in {other.split}.csv line {other.line}{difference}"
            )
        elif difference:
            yield row.finding("id-conflict", f"also in line {other.line}{difference}")
        else:
            yield row.finding("id-repeated", f"also in line {other.line}, with the same label")


def label_difference(one: LabelledImage, two: LabelledImage) -> str:
    """Describes how two labels of a radiograph differ, after a comma; empty if they agree."""
    text = ""
    if one.boneage != two.boneage:
        text += f", bone ages {_months(one.boneage)} and {_months(two.boneage)}"
    if one.male != two.male:
        text += f", {_sex(one.male)} and {_sex(two.male)}"
    return text


def bone_ages(rows: Iterable[LabelledImage]) -> np.ndarray:
    """Returns the valid bone ages of some rows, in months, float64."""
    return np.array([row.boneage for row in rows if row.boneage is not None], dtype=float)


def _months(boneage: float | None) -> str:
    return "unknown" if boneage is None else f"{boneage:g}"


def _sex(male: bool | None) -> str:
    return "sex unknown" if male is None else ("boy" if male else "girl")


def divided_patients(rows: Sequence[LabelledImage]) -> Iterator[Finding]:
    """Yields findings on patients in several splits: their first row in each further split."""
    seen: dict[str, dict[str, LabelledImage]] = {}
    for row in rows:
        places = seen.setdefault(row.patient, {})
        if row.patient and places and row.split not in places:
            other = next(iter(places.values()))
            yield row.finding(
                "patient-in-two-splits",
                f"patient {row.patient} is also in {other.split}.csv line {other.line}",
            )
        places.setdefault(row.split, row)


def patients_of_both_sexes(rows: Iterable[LabelledImage]) -> Iterator[Finding]:
    """Yields findings on rows whose sex is not that of the patient's first radiograph."""
    first: dict[str, LabelledImage] = {}
    for row in rows:
        if row.patient and row.male is not None:
            other = first.setdefault(row.patient, row)
            if other.male != row.male:
                yield row.finding(
                    "patient-of-both-sexes",
                    f"patient {row.patient}: {_sex(row.male)} here, {_sex(other.male)} in "
                    f"{other.split}.csv line {other.line}",
                )


def distributions(rows: Sequence[LabelledImage], split: str) -> Iterator[Finding]:
    """Yields findings on the distributions of bone age and sex in a split."""
    rows = [row for row in rows if row.split == split]
    ages = [row.boneage for row in rows if row.boneage is not None]
    if split == "test" and len(ages) < len(rows):
        yield Finding(
            "boneage-unknown", f"{len(rows) - len(ages):,} of {len(rows):,} without bone age", split
        )
    if look_like_years(ages):
        yield Finding("boneage-in-years", f"bone ages from {min(ages):g} to {max(ages):g}", split)
    if split == "train" and len(ages) >= _ENOUGH_ROWS:
        young = sum(age < YOUNG for age in ages)
        if young < _RARE_YOUNG * len(ages):
            message = (
                f"{young:,} of {len(ages):,} ({young / len(ages):.0%}) under {YOUNG:.0f} months"
            )
            yield Finding("few-young", message, split)
    sexes = [row.male for row in rows if row.male is not None]
    if len(sexes) >= _ENOUGH_ROWS:
        boys = sum(sexes)
        girls = len(sexes) - boys
        if min(boys, girls) < _RARE_SEX * len(sexes):
            yield Finding(
                "sex-imbalance", f"{counted(boys, 'boy')} and {counted(girls, 'girl')}", split
            )


def check_label_version(rows: Sequence[LabelledImage], source: Source | None) -> Iterator[Finding]:
    """Reports the version of the test labels, and whether SOURCE.json disagrees."""
    test = pd.DataFrame(
        [(row.id, row.boneage) for row in rows if row.split == "test"], columns=["id", "boneage"]
    )
    found = label_version(test)
    if found == "none":
        return
    first = test.loc[test["id"] == str(RSNA_TEST_IDS[0]), "boneage"].dropna()
    example = f" (id {RSNA_TEST_IDS[0]} is {first.iloc[0]:g} months)" if len(first) else ""
    yield Finding("label-version", f"the test labels are '{found}'{example}", "test")
    if source and source.complete and source.label_version != found:
        message = f"{SOURCE_FILE} names '{source.label_version}', the labels are '{found}'{example}"
        yield Finding("label-version-wrong", message, "test")
