"""Downloads RSNA's public archives of the 2017 Pediatric Bone Age Challenge; needs no login."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boneage_cli.datasets.disk import require_free
from boneage_cli.datasets.download import download
from boneage_cli.datasets.fetching import Fetched, already_there, begin, fetching, finish
from boneage_cli.datasets.local import STAGING, place
from boneage_cli.datasets.manifest import SPLITS, read_manifest
from boneage_cli.datasets.matching import arrange
from boneage_cli.datasets.rsna_terms import RSNA_CITATION, RSNA_PAGE, RSNA_TERMS
from boneage_cli.datasets.source import Source
from boneage_cli.datasets.source_files import find_files
from boneage_cli.errors import BoneageError

BASE_URL = "https://s3.amazonaws.com/east1.public.rsna.org/AI/2017/"
_ARCHIVES_FOLDER = "archives"


@dataclass(frozen=True)
class Archive:
    """One archive on the server.

    Attributes:
        name: Its file name.
        split: The split that it belongs to.
        bytes: Approximate size; unpacking takes as much again, because the radiographs are PNGs.
        sha256: Its SHA-256; None if unknown.
    """

    name: str
    split: str
    bytes: int
    sha256: str | None = None


ARCHIVES = (
    Archive(
        "Bone+Age+Training+Set.zip",
        "train",
        9_600_000_000,
        "9eab917f59bf520b4eb10803d33e7007ea3b3c2bd4df1c55aff45bc339b2736a",
    ),
    Archive(
        "Bone+Age+Training+Set+Annotations.zip",
        "train",
        100_000,
        "f6373249b6ec85d182c62ab83f05fa76dff90ba03315e455dd6de332dffc7215",
    ),
    Archive(
        "Bone+Age+Validation+Set.zip",
        "validation",
        1_100_000_000,
        "683ea5398dd9d0730af883e673176a5c6817fd35a5a59331a500fa7affcd36f0",
    ),
    Archive("Bone+Age+Test+Set.zip", "test", 170_000_000),
)


def fetch_rsna(
    folder: Path,
    *,
    splits: Sequence[str] = SPLITS,
    accept_terms: bool = False,
    base_url: str = BASE_URL,
    archives: Sequence[Archive] = ARCHIVES,
    keep_archives: bool = True,
    force: bool = False,
    wait: float = 1.0,
) -> Fetched:
    """Downloads, verifies and unpacks RSNA's radiographs, split by split.

    An interrupted download is resumed, and a complete split is skipped.

    Args:
        folder: The data set's folder; the archives are stored in ``archives/`` below it.
        splits: Any of train, validation and test.
        accept_terms: Whether the user accepts RSNA's terms of use.
        base_url: URL of the archives' folder.
        archives: The archives in that folder.
        keep_archives: False deletes each split's archives once it is in place.
        force: Replaces an earlier data set in the folder.
        wait: Seconds before the first retry of a failed request; doubled each time.

    Returns:
        The data set.

    Raises:
        BoneageError: The terms are not accepted, the disk has not enough room, or the server
            cannot be reached, refuses, or sends files with another SHA-256.
    """
    if not accept_terms:
        raise BoneageError(
            f"RSNA's terms are not accepted; read them at {RSNA_PAGE}, then add --accept-terms to "
            "the command"
        )
    source = Source(
        name="rsna",
        requested="RSNA Pediatric Bone Age Challenge 2017",
        terms=RSNA_TERMS,
        citation=RSNA_CITATION,
    )
    with fetching(folder, source, force=force) as earlier:
        missing = [
            split for split in SPLITS if split in splits and not _is_there(folder, split, earlier)
        ]
        there = already_there(folder, earlier)
        if there and not missing:
            return there
        wanted = [archive for archive in archives if archive.split in missing]
        require_free(
            folder,
            _bytes_needed(folder, wanted, keep_archives),
            "choose another disk with --to, fewer splits with --split, or --no-keep-archives",
        )
        if earlier is None:
            begin(folder, source)
        source = earlier or source
        warnings: list[str] = []
        for split in missing:
            parts = [archive for archive in wanted if archive.split == split]
            for archive in parts:
                entry = _get(archive, folder, base_url, wait)
                others = [known for known in source.files if known["url"] != entry["url"]]
                source = replace(source, files=[*others, entry])
            files = [_archive_path(folder, archive) for archive in parts]
            warnings += _unpack(files, folder, split)
            if split == "validation":
                source = replace(source, validation="from the source")
            source = finish(folder, source, complete=split == missing[-1]).source
            if not keep_archives:
                for file in files:
                    file.unlink()
        return Fetched(folder, read_manifest(folder), source, warnings=warnings)


def _is_there(folder: Path, split: str, earlier: Source | None) -> bool:
    if earlier is None or split not in earlier.splits:
        return False
    try:
        paths = read_manifest(folder, split)["path"]
    except BoneageError:
        return False
    return all(map(os.path.exists, paths))


def _archive_path(folder: Path, archive: Archive) -> Path:
    return folder / _ARCHIVES_FOLDER / archive.name


def _bytes_needed(folder: Path, archives: Sequence[Archive], keep_archives: bool) -> int:
    downloads = []
    for archive in archives:
        file = _archive_path(folder, archive)
        part = file.with_name(f"{file.name}.part")
        here = next((path.stat().st_size for path in (file, part) if path.exists()), 0)
        downloads.append(max(archive.bytes - here, 0))
    # Of what an interrupted command has unpacked, the rest is still to come.
    splits = {archive.split for archive in archives}
    placed = sum(file.stat().st_size for split in splits for file in (folder / split).glob("*"))
    unpacked = max(sum(archive.bytes for archive in archives) - placed, 0)
    return unpacked + (sum(downloads) if keep_archives else max(downloads, default=0))


def _get(archive: Archive, folder: Path, base_url: str, wait: float) -> dict[str, object]:
    url = base_url.rstrip("/") + "/" + archive.name
    file = _archive_path(folder, archive)
    found = download(url, file, digest=archive.sha256, wait=wait)
    return {"url": url, "bytes": file.stat().st_size, "sha256": found}


def _unpack(files: Sequence[Path], folder: Path, split: str) -> list[str]:
    staging = folder / STAGING
    try:
        arrangement = arrange(find_files(files, staging))
        arrangement.table["split"] = split
        place(arrangement, folder, copy=False)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return arrangement.warnings
