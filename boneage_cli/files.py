"""Writing files whole or not at all."""

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
    """Tells of a file or folder that cannot be written in one line.

    Args:
        place: What is written.
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
    """The file or folder itself, or where it is missing the nearest of those that would hold it."""
    existing = Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def check_writable(place: str | os.PathLike[str], option: str = "--output") -> None:
    """Refuses a file or folder that cannot be written, before work that would be lost.

    Args:
        place: What is to be written; it need not exist yet.
        option: The option that chose it.

    Raises:
        BoneageError: It may not be written to, or a file lies where a folder would have to be.
    """
    existing = nearest_existing(place)
    if existing != Path(place).absolute() and not existing.is_dir():
        raise BoneageError(f"{place}: {existing} is a file; choose another {option}")
    if not os.access(existing, os.W_OK):
        raise BoneageError(f"{place}: may not be written to; choose another {option}")


def is_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a file or folder lies in another, or is it, in whatever way both are written."""
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it when the block ends without error.

    A reader sees the old file or the new one, never a part of it, whatever kills the writer.

    Args:
        path: The file to write; its folder is made where it is missing.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        # A pipe or /dev/null is written to; renaming a file over it would destroy it.
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the same, since image and table writers choose the format by it. The name
    # is known before the file is made, so that an interrupt in between leaves none.
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def try_lock(file: IO[Any]) -> bool:
    """Whether no other process has said so of this file, where the system can tell.

    Args:
        file: Open; what is said holds until it is closed.
    """
    return _locked(file.fileno(), wait=False)


@contextmanager
def locked_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Has processes that change one file of a folder wait for each other, where the system can.

    Args:
        folder: It is there already.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _locked(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _locked(handle: int, *, wait: bool) -> bool:
    """Locks what is open until it is closed; False where another process has, and none waits."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems know no locks.
        return True
    return True
