"""Disk cache of decoded images: each radiograph is preprocessed once, then memory-mapped.

A cache is ``n × height × width`` bytes in one ``.npy`` file per view. Its name is a digest of the
contents of the image files, in order, and of the settings and the code that rendered them, so any
change leads to another cache file and an outdated one is never used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from boneage_cli.code_digest import IMAGING, code_digest
from boneage_cli.csv_files import write_csv
from boneage_cli.datasets.disk import require_free
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file
from boneage_cli.locks import locked_folder
from boneage_cli.progress import track
from boneage_cli.threads import worker_threads

# Table of the image files' SHA-256 by path, size and mtime.
DIGESTS = "digests.csv"
# Older unfinished files are of builds that were killed (seconds).
_LONGEST_BUILD = 24 * 60 * 60


def cached_pixels(
    paths: Sequence[str],
    render: Callable[[int], dict[str, np.ndarray]],
    *,
    shapes: dict[str, tuple[int, int]],
    key: str,
    folder: Path,
) -> dict[str, np.ndarray]:
    """Memory-maps the rendered images, rendering them first if they are not in the cache.

    Args:
        paths: The image files; their contents are part of the cache key.
        render: Returns the views of image ``i``, uint8, of ``shapes``. Called from several threads.
        shapes: Height and width of each view, pixels.
        key: Cache key of everything else that decides the pixels: settings, geometry.
        folder: Folder of the caches.

    Returns:
        For each view an array (n, height, width), uint8, read only, memory-mapped.

    Raises:
        BoneageError: An image cannot be read, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = content_digests(paths, folder / DIGESTS)
        identity = json.dumps([code_digest(IMAGING), cv2.__version__, key, shapes, digests])
        stem = f"pixels-{hashlib.sha256(identity.encode()).hexdigest()[:20]}"
        files = {view: folder / f"{stem}-{view}.npy" for view in shapes}
        pixels = _opened(files, len(paths), shapes)
        if pixels is None:
            # Another process may be building the same.
            with locked_folder(folder):
                pixels = _opened(files, len(paths), shapes)
                if pixels is None:
                    _remove_leftovers(folder)
                    _build(files, len(paths), render, shapes)
                    pixels = _opened(files, len(paths), shapes)
    except OSError as error:
        raise BoneageError(
            f"{folder}: the image cache cannot be written ({error.strerror}); "
            "choose another place with --cache"
        ) from None
    if pixels is None:
        raise BoneageError(
            f"{folder}: the image cache is damaged just after it was written; check the disk, or "
            "choose another place with --cache"
        )
    return pixels


def _opened(
    files: dict[str, Path], count: int, shapes: dict[str, tuple[int, int]]
) -> dict[str, np.ndarray] | None:
    """Memory-maps the files of a cache; None if one is missing or cut off."""
    try:
        pixels = {view: np.load(file, mmap_mode="r") for view, file in files.items()}
    except (FileNotFoundError, ValueError, EOFError):
        return None
    whole = all(array.shape == (count, *shapes[view]) for view, array in pixels.items())
    return pixels if whole else None


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed builds left; by age, since some network file systems have no locks."""
    for file in folder.glob(".pixels-*"):
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > _LONGEST_BUILD:
                file.unlink()


def content_digests(paths: Sequence[str], memo: Path, workers: int | None = None) -> list[str]:
    """Returns each file's SHA-256; known ones come from a table of path, size and mtime.

    Args:
        paths: The files.
        memo: The table, a CSV file that is read and updated.
        workers: Threads; None for one per core.

    Raises:
        BoneageError: A file is missing.
    """
    known: dict[tuple[str, int, int], str] = {}
    if memo.exists():
        try:
            table = pd.read_csv(
                memo, dtype={"path": str, "digest": str}, encoding_errors="surrogateescape"
            )
            known = {
                (path, size, changed): digest
                for path, size, changed, digest in table.itertuples(index=False)
            }
        except (ValueError, OSError):
            known = {}

    def stamp(path: str) -> tuple[str, int, int]:
        with _errors_of(path):
            status = os.stat(path)  # noqa: PTH116
            return path, status.st_size, status.st_mtime_ns

    def digest(path: str) -> str:
        with _errors_of(path):
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    # Threads are used only for reading files: for os.stat they are slower than one thread.
    stamps = list(map(stamp, paths))
    new = [each for each in dict.fromkeys(stamps) if each not in known]
    if new:
        with worker_threads(workers) as pool:
            found = pool.map(digest, [path for path, _, _ in new], chunksize=64)
            known.update(zip(new, found, strict=True))
        rows = [(*each, digest) for each, digest in known.items()]
        write_csv(pd.DataFrame(rows, columns=["path", "size", "changed", "digest"]), memo)
    return [known[each] for each in stamps]


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turns an OSError of the block into an error that names the image."""
    try:
        yield
    except OSError as error:
        raise BoneageError(
            f"{path}: {error.strerror}; 'boneage check-data' lists every such image"
        ) from None


def _build(
    files: dict[str, Path],
    count: int,
    render: Callable[[int], dict[str, np.ndarray]],
    shapes: dict[str, tuple[int, int]],
) -> None:
    # Writing to a memory-mapped file on a full disk kills the process without a message.
    needed = count * sum(math.prod(shapes[view]) for view in files)
    require_free(next(iter(files.values())).parent, needed, "choose another place with --cache")
    with ExitStack() as stack:
        pixels = {
            view: np.lib.format.open_memmap(
                stack.enter_context(whole_file(file)),
                mode="w+",
                dtype=np.uint8,
                shape=(count, *shapes[view]),
            )
            for view, file in files.items()
        }

        def fill(position: int) -> None:
            for view, rendered in render(position).items():
                pixels[view][position] = rendered

        # The first unreadable image or an interrupt stops the build at once.
        with worker_threads() as pool:
            for _ in track(pool.map(fill, range(count)), description="decode images", total=count):
                pass
        for array in pixels.values():
            array.flush()
