"""Digests of source files, used in cache keys so that caches made by other code are rebuilt."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

IMAGING = Path(__file__).with_name("imaging")
"""The package folder whose code turns files into pixels."""


@cache
def code_digest(*places: Path) -> str:
    """Returns the SHA-256 of Python files and of all Python files in folders.

    Args:
        places: Files and folders of the package.
    """
    digest = hashlib.sha256()
    for place in places:
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
