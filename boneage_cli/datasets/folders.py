"""Which files of a folder are radiographs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from boneage_cli.datasets.manifest import IMAGE_SUFFIXES
from boneage_cli.errors import BoneageWarning
from boneage_cli.imaging.containers import is_dicom

# Pictures that nobody here reads; a folder's are told of.
_OTHER_PICTURES = (".bmp", ".gif", ".jp2", ".j2k", ".jpf", ".heic", ".heif", ".avif", ".jxl")


def radiographs_below(
    folder: str | Path, *, tell: bool = False
) -> Iterator[tuple[str, str | None]]:
    """Yields the radiographs of a folder, and at last what in it cannot be opened and why.

    The folder is searched to the bottom, in order of name; hidden files and folders are passed
    over. DICOM files are known by their mark, whatever they are called.

    Args:
        folder: The folder.
        tell: Whether to warn of pictures that are left out.
    """
    closed: list[OSError] = []
    others: list[str] = []
    # Links to folders are followed, each folder once, so that a link to a parent ends.
    seen = {Path(folder).resolve()}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=closed.append):
        inner = []
        for name in sorted(folders):
            real = Path(root, name).resolve()
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                inner.append(name)
        folders[:] = inner
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith("."):
                continue
            if _is_radiograph(path):
                yield str(path), None
            elif path.suffix.lower() in _OTHER_PICTURES:
                others.append(str(path))
    for error in closed:
        yield str(error.filename), f"cannot be read ({error.strerror}); check its permissions"
    if others and tell:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        warnings.warn(
            f"{folder}: left out {others[0]}{more}, of a kind that is not read; save as PNG",
            BoneageWarning,
            stacklevel=2,
        )


def _is_radiograph(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    with suppress(OSError):
        if path.exists():
            return is_dicom(path)
    # What cannot be opened fails by itself if it is named as archives name DICOM files: IM000001,
    # or by their UID, which ends in a number.
    suffix = path.suffix.lower()
    return suffix in ("", ".ima") or suffix[1:].isdigit()
