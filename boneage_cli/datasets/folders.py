"""The files of a folder and those below it, and which of them are radiographs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from boneage_cli.errors import BoneageWarning
from boneage_cli.imaging.file_headers import is_dicom
from boneage_cli.imaging.png import EXPLANATION, has_note
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

# Pictures that nobody here reads; a folder's are told of.
_OTHER_PICTURES = (".bmp", ".gif", ".jp2", ".j2k", ".jpf", ".heic", ".heif", ".avif", ".jxl")


def files_below(
    top: str | Path, closed: Callable[[OSError], object], *, leave_out: Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and all below it, each with the names of its files, in order of name.

    Hidden files and folders are passed over. Links to folders are followed, each folder once,
    since links can lead in circles.

    Args:
        top: The folder.
        closed: Called with why a folder cannot be read.
        leave_out: A folder that is passed over wherever it turns up.
    """
    seen = {Path(top).resolve()} | ({leave_out.resolve()} if leave_out else set())
    for root, folders, files in os.walk(top, followlinks=True, onerror=closed):
        below = []
        for name in sorted(folders):
            real = Path(root, name).resolve()
            if not is_hidden(name) and real not in seen:
                seen.add(real)
                below.append(name)
        folders[:] = below
        yield Path(root), sorted(name for name in files if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's radiograph, but the system's."""
    return name.startswith(".") or name == "__MACOSX"


def radiographs_below(
    folder: str | Path, *, tell: bool = False
) -> Iterator[tuple[str, str | None]]:
    """Yields the radiographs of a folder, and at last what in it cannot be opened and why.

    The folder is searched to the bottom, in order of name; hidden files and folders are passed
    over, and so are the pictures of ``predict --explain``. DICOM files are known by their mark,
    whatever they are called.

    Args:
        folder: The folder.
        tell: Whether to warn of pictures that are left out.
    """
    closed: list[OSError] = []
    others: list[str] = []
    for place, names in files_below(folder, closed.append):
        for name in names:
            path = place / name
            if path.suffix.lower() == ".png" and has_note(path, EXPLANATION):
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
