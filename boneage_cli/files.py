"""Atomic writing of files, and checks of output paths."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boneage_cli.errors import BoneageError


@contextmanager
def explaining_write_errors(
    place: str | os.PathLike[str], instead: str = "--output"
) -> Iterator[None]:
    """Turns an OSError of the block into a one-line error that names the file or folder.

    Args:
        place: The file or folder.
        instead: What the message says to choose another of: the option that chose it, or a phrase
            such as ``folder with --to``.

    Raises:
        BoneageError: Instead of the block's OSError.
    """
    try:
        yield
    except OSError as error:
        raise BoneageError(
            f"{place}: cannot be written ({error.strerror}); choose another {instead}"
        ) from None


def nearest_existing(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path if it exists, else its nearest existing parent folder."""
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def check_writable(place: str | os.PathLike[str], instead: str = "--output") -> None:
    """Refuses a file or folder that cannot be written, before work that would be lost.

    Args:
        place: The file or folder; it need not exist yet.
        instead: What the message says to choose another of: the option that chose it, or a phrase
            such as ``folder with --to``.

    Raises:
        BoneageError: It is not writable, or one of its parent folders is a file.
    """
    existing = nearest_existing(place)
    if existing != Path(place).absolute() and not existing.is_dir():
        raise BoneageError(f"{place}: {existing} is a file; choose another {instead}")
    if not os.access(existing, os.W_OK):
        raise BoneageError(f"{place}: may not be written to; choose another {instead}")


def is_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder or inside it, compared after resolving both."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def behind_link(path: Path) -> Path:
    """Returns the file that a link named by the user points to, so that the link stays.

    Other paths are returned unchanged, also links to devices and pipes such as /dev/stdout.
    """
    is_link = path.is_symlink() and (path.is_file() or not path.exists())
    return path.resolve() if is_link else path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` when the block ends without error.

    Readers see the old file or the complete new one, even if the writer is killed.

    Args:
        path: The file to write; its folder is created if missing.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        # A pipe or /dev/null is written directly; renaming a file over it would destroy it.
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept, because image and table writers choose the format by it. The name is
    # chosen before the file is created, so that an interrupt in between leaves no file behind.
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
