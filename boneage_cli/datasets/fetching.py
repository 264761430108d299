"""What all fetches share: one at a time into a folder, begun, resumed and completed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from boneage_cli.datasets.label_version import label_version
from boneage_cli.datasets.manifest import SPLITS, read_manifest
from boneage_cli.datasets.source import (
    SOURCE_FILE,
    UNMATCHED_FILE,
    Source,
    read_source,
    write_source,
)
from boneage_cli.errors import BoneageError
from boneage_cli.files import check_writable, explaining_write_errors
from boneage_cli.locks import locked_folder


@dataclass
class Fetched:
    """A data set that is ready for use.

    Attributes:
        folder: Its folder.
        manifest: Its table, as returned by ``read_manifest``.
        source: The contents of SOURCE.json.
        notes: Messages for the user, one sentence each.
        warnings: Problems that the user should check, one sentence each.
        unchanged: True if an earlier run had already completed it.
    """

    folder: Path
    manifest: pd.DataFrame
    source: Source
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unchanged: bool = False


@contextmanager
def fetching(folder: Path, wanted: Source, *, force: bool = False) -> Iterator[Source | None]:
    """Keeps a data set's folder to one fetch at a time; an empty folder is removed at the end.

    Args:
        folder: The data set's folder, new or of an earlier run; it is made if it is missing.
        wanted: The record of the data set to be written.
        force: An earlier data set will be removed, whatever its source.

    Yields:
        The record of an earlier run for the same data set; None if it is made from scratch.

    Raises:
        BoneageError: The folder cannot be made or written, another process is fetching into it, it
            holds another data set and ``force`` is not given, or it holds files that belong to no
            data set.
    """
    if folder.exists() and not folder.is_dir():
        raise BoneageError(f"{folder}: is a file; choose another folder with --to")
    check_writable(folder, "folder with --to")
    with explaining_write_errors(folder, "folder with --to"):
        folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another fetch is writing it; wait for that, or choose another --to"
    try:
        with locked_folder(folder, busy):
            yield _earlier(folder, wanted, force)
    finally:
        with suppress(OSError):
            folder.rmdir()


def _earlier(folder: Path, wanted: Source, force: bool) -> Source | None:
    existing = read_source(folder)
    if existing is None and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise BoneageError(
            f"{folder}: holds files but no {SOURCE_FILE}, so no data set made by boneage; "
            "choose another folder with --to"
        )
    if existing is None or force:
        return None
    difference = _difference(existing, wanted)
    # The remains of an interrupted command may be replaced by another data set.
    if difference and not existing.complete:
        return None
    if difference:
        raise BoneageError(
            f"{folder}: holds a data set made {difference}; replace it with --force, or put the "
            "new one elsewhere with --to"
        )
    return existing


def _difference(existing: Source, wanted: Source) -> str:
    if existing.name != wanted.name:
        return f"by 'boneage fetch {existing.name}'"
    if existing.requested != wanted.requested:
        return "from other files, or from files that have changed since"
    if existing.options != wanted.options:
        return "with " + ", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in existing.options.items()
            if value != wanted.options.get(name)
        )
    return ""


def begin(folder: Path, source: Source) -> None:
    """Writes the record as incomplete, after removing an earlier data set from the folder."""
    if (folder / SOURCE_FILE).exists():
        _remove_dataset(folder)
    write_source(folder, source)


def _remove_dataset(folder: Path) -> None:
    """Removes a data set's splits, their CLAHE copies and tables; archives and caches stay."""
    for split in SPLITS:
        for images in (folder / split, folder / f"{split}_CLAHE"):
            if images.is_symlink():
                images.unlink()
            elif images.is_dir():
                shutil.rmtree(images)
        for table in (f"{split}.csv", f"{split}_CLAHE.csv"):
            (folder / table).unlink(missing_ok=True)
    for name in (SOURCE_FILE, UNMATCHED_FILE, "landmarks.csv", "regions.csv"):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path, source: Source, *, complete: bool = True) -> Fetched:
    """Completes SOURCE.json from the current contents of the folder.

    Args:
        folder: The data set's folder, with its CSVs.
        source: The record so far.
        complete: Whether everything requested is present.

    Returns:
        The data set.
    """
    manifest = read_manifest(folder)
    splits = {}
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        if len(rows):
            splits[split] = {"images": len(rows), "labels": int(rows["boneage"].notna().sum())}
    source = replace(
        source,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        splits=splits,
        label_version=label_version(manifest[manifest["split"] == "test"]),
        complete=complete,
    )
    write_source(folder, source)
    return Fetched(folder, manifest, source)


def already_there(folder: Path, earlier: Source | None) -> Fetched | None:
    """Returns the data set if an earlier run completed it and all its images still exist."""
    if earlier is None or not earlier.complete:
        return None
    try:
        manifest = read_manifest(folder)
    except BoneageError:
        return None
    if not all(Path(path).exists() for path in manifest["path"]):
        return None
    return Fetched(folder, manifest, earlier, unchanged=True)
