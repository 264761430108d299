"""Which code made what is kept on disk: what other code made is made anew."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

IMAGING = Path(__file__).with_name("imaging")
"""What turns files into pixels."""


@cache
def code_digest(*places: Path) -> str:
    """The SHA-256 of Python files, and of all those in folders.

    Args:
        places: Files and folders of the package.
    """
    digest = hashlib.sha256()
    for place in places:
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
