"""The patient's age and the side of the hand, as stated in a DICOM file."""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from pydicom.dataset import Dataset

from boneage_cli.ages import is_childs_age
from boneage_cli.imaging.dicom_elements import text_of

_DAYS_PER_MONTH = 365.25 / 12
_MONTHS = {"Y": 12.0, "M": 1.0, "W": 7 / _DAYS_PER_MONTH, "D": 1 / _DAYS_PER_MONTH}
# Dates of the examination; archives differ in which of them they keep.
_DATES = ("StudyDate", "AcquisitionDate", "ContentDate")
# Largest accepted difference between stated and computed age, months: anonymised files more often
# have a false birth date than a false age.
_LARGEST_CONTRADICTION = 24.0


class PatientsAge(NamedTuple):
    """A patient's chronological age.

    Attributes:
        months: The age in months; None if unknown.
        doubt: Why the age is unknown although the file tells of it: its dates are impossible or
            contradict the stated age; else None.
    """

    months: float | None
    doubt: str | None = None


def age_of(dataset: Dataset) -> PatientsAge:
    """Returns the age from the dates or, without them, as stated.

    The dates are preferred, because ages stated in whole years are rounded down. A stated age of 0
    years means unknown.
    """
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text_of(dataset, "PatientAge"))
    stated = int(match[1]) * _MONTHS[match[2]] if match else None
    if match and match[2] == "Y" and not stated:
        stated = None
    birth = _date(dataset, "PatientBirthDate")
    taken = next(filter(None, (_date(dataset, name) for name in _DATES)), None)
    if birth is None or taken is None:
        return PatientsAge(stated)
    counted = (taken - birth).days / _DAYS_PER_MONTH
    by_dates = f"{counted:.0f} months by the file's dates"
    if not is_childs_age(counted):
        return PatientsAge(stated, by_dates if stated is None else None)
    if stated is not None and abs(counted - stated) > _LARGEST_CONTRADICTION:
        return PatientsAge(None, f"{by_dates}, but {stated:.0f} by its PatientAge")
    return PatientsAge(counted)


def _date(dataset: Dataset, name: str) -> date | None:
    # Files from before 1993 (ACR-NEMA) have dates like 1992.11.05.
    parts = re.fullmatch(r"(\d{4})(\.?)(\d\d)\2(\d\d)", text_of(dataset, name))
    try:
        return date(int(parts[1]), int(parts[3]), int(parts[4])) if parts else None
    except ValueError:
        return None


def laterality_of(dataset: Dataset) -> str | None:
    """Returns the side of the hand, L or R; None if unknown."""
    for name in ("ImageLaterality", "Laterality"):
        side = text_of(dataset, name)
        if side in ("L", "R"):
            return side
    return None
