"""Atomic writing of files, checks of output paths, and file locks."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from boneage_cli.errors import BoneageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def writing(place: str | os.PathLike[str], option: str = "--output") -> Iterator[None]:
    """Turns an OSError of the block into a one-line error that names the file or folder.

    Args:
        place: The file or folder.
        option: The option that chose it.

    Raises:
        BoneageError: Instead of the block's OSError.
    """
    try:
        yield
    except OSError as error:
        raise BoneageError(
            f"{place}: cannot be written ({error.strerror}); choose another {option}"
        ) from None


def nearest_existing(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path if it exists, else its nearest existing parent folder."""
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def check_writable(place: str | os.PathLike[str], option: str = "--output") -> None:
    """Refuses a file or folder that cannot be written, before work that would be lost.

    Args:
        place: The file or folder; it need not exist yet.
        option: The option that chose it.

    Raises:
        BoneageError: It is not writable, or one of its parent folders is a file.
    """
    existing = nearest_existing(place)
    if existing != Path(place).absolute() and not existing.is_dir():
        raise BoneageError(f"{place}: {existing} is a file; choose another {option}")
    if not os.access(existing, os.W_OK):
        raise BoneageError(f"{place}: may not be written to; choose another {option}")


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


def try_lock(file: IO[Any]) -> bool:
    """Takes an advisory lock; False if another process holds it, True if there are no locks.

    Args:
        file: An open file; the lock is released when it is closed.
    """
    return _locked(file.fileno(), wait=False)


@contextmanager
def locked_folder(folder: str | os.PathLike[str], busy: str = "") -> Iterator[None]:
    """Lets one process at a time change files in a folder (advisory lock).

    Args:
        folder: An existing folder.
        busy: The message if another process has it; empty to wait for that.

    Raises:
        BoneageError: Another process has it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle, wait=not busy):
            raise BoneageError(busy)
        yield
    finally:
        os.close(handle)


def _locked(handle: int, *, wait: bool) -> bool:
    """Locks a handle until it is closed; False if another process has the lock and wait is off."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks.
        return True
    return True
