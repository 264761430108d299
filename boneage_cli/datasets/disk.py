"""Room on the disk, checked before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from boneage_cli.errors import BoneageError
from boneage_cli.files import nearest_existing


def require_free(folder: Path, needed: float, hint: str = "choose another disk with --to") -> None:
    """Refuses to begin what would fill the disk.

    Args:
        folder: Where files will be written; it need not exist yet.
        needed: Bytes to be written.
        hint: The way out that the message names.

    Raises:
        BoneageError: Less than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise BoneageError(
            f"{folder}: needs {readable_bytes(needed)} of disk, {readable_bytes(free)} are free; "
            f"{hint}"
        )


def readable_bytes(count: float) -> str:
    """Writes a number of bytes as a person would: 9.6 GB, 170 MB."""
    unit, *larger = ("bytes", "kB", "MB", "GB")
    while count >= 999.5 and larger:
        count /= 1000
        unit, *larger = larger
    return f"{count:.1f} {unit}" if 0 < count < 10 and unit != "bytes" else f"{count:,.0f} {unit}"
