"""Ids and splits told by the names of files and folders."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

_SPLIT_WORDS = {
    "train": {"train", "training", "trainset"},
    "validation": {"val", "valid", "validation", "validate", "valset", "validset"},
    "test": {"test", "testing", "testset"},
}


def named_split(name: str) -> str | None:
    """Finds the split mentioned in the name of a file or folder.

    Args:
        name: One name, such as ``boneage-training-dataset`` or ``RSNA_val``.

    Returns:
        One of ``SPLITS``; None if the name mentions none or several.
    """
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    found = [split for split in SPLITS if words & _SPLIT_WORDS[split]]
    return found[0] if len(found) == 1 else None


def image_stem(text: str) -> str:
    """Strips folders and a known image suffix: ``scans/4360.png`` is radiograph ``4360``."""
    name = posix_path(text).name
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def posix_path(text: str) -> PurePosixPath:
    """Returns a path in a table, which may have backslashes."""
    return PurePosixPath(text.strip().replace("\\", "/"))


def whole_id(text: str) -> str:
    """Strips the ``.0`` that spreadsheets and data frames with gaps append: ``1377.0``."""
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text
