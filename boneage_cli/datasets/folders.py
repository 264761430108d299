"""Recursive search of folders for files and for radiographs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from boneage_cli.errors import BoneageWarning
from boneage_cli.imaging.file_headers import DICOM_INDEX, is_dicom
from boneage_cli.imaging.png import EXPLANATION, has_note
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

# Image formats that are not supported; radiographs_below can warn of them.
_OTHER_PICTURES = (".bmp", ".gif", ".jp2", ".j2k", ".jpf", ".heic", ".heif", ".avif", ".jxl")


def files_below(
    top: str | Path, on_error: Callable[[OSError], object], *, exclude: Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and all folders below it, each with its file names, sorted by name.

    Hidden files and folders are skipped. Links to folders are followed; each folder is visited
    once, because links can form cycles.

    Args:
        top: The folder.
        on_error: Called with the error if a folder cannot be read.
        exclude: A folder that is skipped wherever it occurs.
    """
    seen = {Path(top).resolve()} | ({exclude.resolve()} if exclude else set())
    for root, folders, files in os.walk(top, followlinks=True, onerror=on_error):
        below = []
        for name in sorted(folders):
            real = Path(root, name).resolve()
            if not is_hidden(name) and real not in seen:
                seen.add(real)
                below.append(name)
        folders[:] = below
        yield Path(root), sorted(name for name in files if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to the operating system."""
    return name.startswith(".") or name == "__MACOSX"


def radiographs_below(
    folder: str | Path, *, warn: bool = False
) -> Iterator[tuple[str, str | None]]:
    """Yields the radiographs below a folder, then each unreadable folder with the reason.

    The search is recursive and sorted by name; hidden files and folders and the images written by
    ``predict --explain`` are skipped. DICOM files are recognised by their header, not their name.

    Args:
        folder: The folder.
        warn: Whether to warn of skipped images in unsupported formats, and of skipped files that
            are named like DICOM files.
    """
    closed: list[OSError] = []
    others: list[str] = []
    broken: list[str] = []
    for place, names in files_below(folder, closed.append):
        for name in names:
            path = place / name
            if path.suffix.lower() == ".png" and has_note(path, EXPLANATION):
                continue
            if _is_radiograph(path):
                yield str(path), None
            elif path.suffix.lower() in _OTHER_PICTURES:
                others.append(str(path))
            elif _is_named_like_dicom(path) and _is_no_text(path):
                broken.append(str(path))
    for error in closed:
        yield str(error.filename), f"cannot be read ({error.strerror}); check its permissions"
    for left_out, why in (
        (others, "of a kind that is not read; save as PNG"),
        (broken, "not DICOM: damaged, or no radiograph"),
    ):
        if left_out and warn:
            more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            warnings.warn(
                f"{folder}: left out {left_out[0]}{more}, {why}", BoneageWarning, stacklevel=2
            )


def _is_radiograph(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    with suppress(OSError):
        if path.exists():
            return is_dicom(path)
    # A file that cannot be opened counts, so that the error is reported when it is read.
    return _is_named_like_dicom(path)


def _is_no_text(path: Path) -> bool:
    """Whether a file is empty or binary: README, VERSION and the like are no damaged DICOM."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                start = file.read(512)
            return not start or b"\0" in start
    return False


def _is_named_like_dicom(path: Path) -> bool:
    """Whether a file is named as in archives: IM000001, or a UID, which ends in a number."""
    suffix = path.suffix.lower()
    is_index = path.name.upper() == DICOM_INDEX
    return not is_index and (suffix in ("", ".ima") or suffix[1:].isdigit())
