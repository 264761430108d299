"""Makes a data set from the user's own radiographs and tables."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from boneage_cli.csv_files import write_csv
from boneage_cli.datasets.archives import extract_member, open_archive
from boneage_cli.datasets.checksum import sha256
from boneage_cli.datasets.disk import require_free
from boneage_cli.datasets.fetching import Fetched, already_there, begin, fetching, finish
from boneage_cli.datasets.folders import files_below
from boneage_cli.datasets.manifest import (
    COLUMNS,
    warn_of_impossible_ages,
    warn_of_years,
    write_manifest,
)
from boneage_cli.datasets.matching import Arrangement, arrange
from boneage_cli.datasets.rsna_terms import RSNA_CITATION
from boneage_cli.datasets.source import UNMATCHED_FILE, Source
from boneage_cli.datasets.source_files import SourceFile, find_files
from boneage_cli.datasets.splits import set_aside
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file
from boneage_cli.progress import track

STAGING = ".unpacked"
_LOCAL_TERMS = (
    "Those of the files' origin. For RSNA's radiographs: research, non-commercial, no "
    "redistribution of the images"
)


def fetch_local(
    paths: Sequence[Path],
    folder: Path,
    *,
    copy: bool = False,
    validation_fraction: float = 0.1,
    seed: int = 0,
    force: bool = False,
) -> Fetched:
    """Makes a data set from folders, zips and tables in any known layout and dialect.

    Args:
        paths: Folders, zips, CSV or xlsx tables and images, together one source. If an id occurs
            twice, the path named first wins.
        folder: The data set's folder. Its images are links to loose files, or unpacked from zips.
        copy: Copies loose files instead of linking them.
        validation_fraction: The fraction of training radiographs used for validation if the source
            has no validation split, stratified by sex and age; 0 for none.
        seed: Random seed of that choice.
        force: Replaces an earlier data set in the folder.

    Returns:
        The data set, with notes on decisions made and warnings about files that did not match.

    Raises:
        BoneageError: See ``find_files`` and ``arrange``; or the folder holds other files, or there
            is not enough disk space.
    """
    target = folder.resolve()
    for path in paths:
        if path.resolve() == target or target in path.resolve().parents:
            raise BoneageError(
                f"{path}: lies in the new data set's own folder; choose another --to"
            )
    wanted = Source(
        name="local",
        requested=[_identity(path, target) for path in paths],
        options={"copy": copy, "validation_fraction": validation_fraction, "seed": seed},
        terms=_LOCAL_TERMS,
        citation=f"That of the files' origin. For RSNA's radiographs: {RSNA_CITATION}",
    )
    with fetching(folder, wanted, force=force) as earlier:
        return already_there(folder, earlier) or build_dataset(paths, folder, wanted, earlier)


def build_dataset(
    paths: Sequence[Path], folder: Path, wanted: Source, earlier: Source | None
) -> Fetched:
    """Makes a data set from the radiographs and tables below some paths, within ``fetching``.

    Args:
        paths: As for ``fetch_local``.
        folder: The data set's folder.
        wanted: The SOURCE.json record, with options ``copy``, ``validation_fraction``, ``seed``.
        earlier: The record of an interrupted run for the same data set, which is completed.

    Returns:
        The data set.

    Raises:
        BoneageError: As for ``fetch_local``.
    """
    options = wanted.options
    staging = folder / STAGING
    try:
        arrangement = arrange(find_files(paths, staging, exclude=folder))
        arrangement.table, validation, notes = _make_validation(
            arrangement.table, options["validation_fraction"], options["seed"]
        )
        files = _fingerprints(paths, arrangement)
        source = replace(wanted, files=files, validation=validation)
        if earlier is None:
            begin(folder, source)
        place(arrangement, folder, copy=options["copy"])
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    fetched = finish(folder, source)
    fetched.notes = [*arrangement.notes, *notes]
    fetched.warnings = arrangement.warnings
    warn_of_impossible_ages(fetched.manifest)
    warn_of_years(fetched.manifest)
    return fetched


def place(arrangement: Arrangement, folder: Path, *, copy: bool) -> None:
    """Writes matched radiographs, their tables and the list of unmatched ones into a folder.

    Args:
        arrangement: The radiographs with their splits; the column ``path``, relative to ``folder``,
            is added to its table.
        folder: The data set's folder.
        copy: Copies loose files instead of linking them.

    Raises:
        BoneageError: There is not enough disk space, or an archive is damaged.
    """
    table = arrangement.table
    table["path"] = [
        f"{split}/{name}{PurePosixPath(file.parts[-1]).suffix.lower()}"
        for split, name, file in zip(table["split"], table["id"], table["file"], strict=True)
    ]
    work = [
        (file, folder / path)
        for file, path in zip(table["file"], table["path"], strict=True)
        if not _is_placed(file, folder / path, copy)
    ]
    written = sum(file.size for file, _ in work if copy or file.member is not None)
    require_free(folder, written)
    for split in table["split"].unique():
        (folder / split).mkdir(parents=True, exist_ok=True)
    work.sort(key=lambda pair: (str(pair[0].path), pair[0].member or 0))
    for _ in track(_place_all(work, copy), description="place radiographs", total=len(work)):
        pass
    if len(arrangement.unmatched):
        # Splits may be placed one at a time; the list covers all of them.
        file = folder / UNMATCHED_FILE
        unmatched = arrangement.unmatched.astype(str)
        if file.exists():
            listed = pd.read_csv(file, dtype=str, encoding_errors="surrogateescape")
            unmatched = pd.concat([listed, unmatched]).drop_duplicates()
        write_csv(unmatched, file)
    extra = [name for name in ("patient", "width", "height") if name in table]
    write_manifest(table[[*COLUMNS, *extra]], folder)


def _is_placed(file: SourceFile, target: Path, copy: bool) -> bool:
    if not target.exists():
        return False
    if file.member is None and not copy:
        return target.samefile(file.path)
    return not target.is_symlink() and target.stat().st_size == file.size


def _place_all(work: Sequence[tuple[SourceFile, Path]], copy: bool) -> Iterator[Path]:
    for path, pairs in groupby(work, key=lambda pair: pair[0].path):
        with ExitStack() as stack:
            archive = None
            for file, target in pairs:
                if file.member is None:
                    _link_or_copy(path.resolve(), target, copy)
                else:
                    archive = archive or stack.enter_context(open_archive(path, file.archive))
                    extract_member(archive, archive.infolist()[file.member], target)
                yield target


def _link_or_copy(source: Path, target: Path, copy: bool) -> None:
    if not copy:
        temporary = target.with_name(f".{target.name}")
        temporary.unlink(missing_ok=True)
        # Some file systems have no symbolic links; hard links work only within one file system.
        for link in (os.symlink, os.link):
            try:
                link(source, temporary)
            except OSError:
                continue
            temporary.replace(target)
            return
    try:
        with whole_file(target) as whole:
            shutil.copyfile(source, whole)
    except OSError as error:
        raise BoneageError(f"{target}: {error.strerror}; fix this, then run again") from None


def _make_validation(
    table: pd.DataFrame, fraction: float, seed: int
) -> tuple[pd.DataFrame, str, list[str]]:
    """Makes a validation split if there is none; returns the table, its origin and notes."""
    if (table["split"] == "validation").any():
        return table, "from the source", []
    train = table[table["split"] == "train"]
    chosen = set_aside(train, fraction, seed)
    if not chosen.any():
        return table, "none", []
    table = table.copy()
    table.loc[chosen.index[chosen], "split"] = "validation"
    origin = (
        f"{chosen.sum():,} of {len(train):,} training radiographs, stratified by sex and age, "
        f"fraction {fraction:g}, seed {seed}"
    )
    return table, origin, [f"The source has no validation split; one was made: {origin}."]


def _identity(path: Path, target: Path) -> dict[str, Any]:
    """Describes a path so that a later run can detect changes."""
    if not path.exists():
        raise BoneageError(f"{path}: no such file or folder; check the spelling")
    found = [path.resolve()]
    if path.is_dir():
        # Unreadable folders are reported later, by find_files.
        walk = files_below(path.resolve(), lambda error: None, exclude=target)
        found = [folder / name for folder, names in walk for name in names]
    stats = [file.stat() if file.exists() else file.lstat() for file in found]
    latest = max((stat.st_mtime for stat in stats), default=0.0)
    return {
        "path": str(path.resolve()),
        "files": len(found),
        "bytes": sum(stat.st_size for stat in stats),
        "changed": datetime.fromtimestamp(latest, timezone.utc).isoformat(),
    }


def _fingerprints(paths: Sequence[Path], arrangement: Arrangement) -> list[dict[str, Any]]:
    prints = [
        {"path": str(path.resolve()), "bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
        if path.is_file()
    ]
    prints += [
        {"path": str(file), "bytes": file.size, "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in arrangement.tables
        if not file.given
    ]
    return prints
