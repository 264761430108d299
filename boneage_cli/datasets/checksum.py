"""Checksums of large files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from boneage_cli.progress import track


def sha256(path: Path) -> str:
    """Computes a file's SHA-256, with a progress bar."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    progress: tqdm[Any] = track(
        description=f"check {path.name}", total=size, unit="B", unit_scale=True
    )
    with progress as bar, path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
