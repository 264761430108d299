"""Values of DICOM elements; those that violate the standard count as missing."""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue


class DicomError(ValueError):
    """A DICOM file cannot be read as a radiograph; the message does not name the file."""


class DicomNoImageError(DicomError):
    """A DICOM file without an image, such as a report."""


def value_of(dataset: Dataset, name: str) -> Any:
    """Returns an element's value; None if it is missing, empty, or violates the standard."""
    try:
        return dataset.get(name)
    except Exception:  # values are parsed on access and may raise any exception
        return None


def text_of(dataset: Dataset, name: str) -> str:
    """Returns an element's value as text in capitals; empty if it is missing."""
    return str(value_of(dataset, name) or "").strip().upper()


def numbers_of(dataset: Dataset, name: str) -> list[float]:
    """Returns an element's numbers; none if it is missing or one of them is no finite number."""
    value = value_of(dataset, name)
    values = value if isinstance(value, MultiValue) else [value]
    try:
        numbers = [float(each) for each in values]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
