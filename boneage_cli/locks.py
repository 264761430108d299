"""Advisory locks on files and folders, between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from boneage_cli.errors import BoneageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


def try_lock(file: IO[Any]) -> bool:
    """Takes an advisory lock; False if another process holds it, True if there are no locks.

    Args:
        file: An open file; the lock is released when it is closed.
    """
    return _locked(file.fileno(), wait=False)


@contextmanager
def only_process(folder: Path, busy: str) -> Iterator[None]:
    """Keeps other processes from doing the same work in a folder, by a lock on a file in it.

    Unlike ``locked_folder`` it lasts for hours, during which others may lock the folder itself.

    Args:
        folder: An existing folder.
        busy: The message if another process works there.

    Raises:
        BoneageError: Another process works there.
    """
    with (folder / LOCK).open("ab") as file:
        if not try_lock(file):
            raise BoneageError(busy)
        yield


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
