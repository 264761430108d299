"""Free space on disks."""

from __future__ import annotations

import shutil
from pathlib import Path

from boneage_cli.errors import BoneageError
from boneage_cli.files import nearest_existing


def require_free(folder: Path, needed: float, hint: str = "choose another disk with --to") -> None:
    """Refuses to start writing files if the disk lacks the space for them.

    Args:
        folder: Folder of the files; it need not exist yet.
        needed: Bytes to be written.
        hint: Advice that ends the message.

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
    """Formats a number of bytes with a unit: 9.6 GB, 170 MB."""
    unit, *larger = ("bytes", "kB", "MB", "GB")
    while count >= 999.5 and larger:
        count /= 1000
        unit, *larger = larger
    return f"{count:.1f} {unit}" if 0 < count < 10 and unit != "bytes" else f"{count:,.0f} {unit}"
