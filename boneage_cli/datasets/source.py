"""SOURCE.json: the record of a data set's origin, date, terms of use and label version.

It is written as incomplete at the start and as complete at the end. This distinguishes an
interrupted command from a finished one, and from a folder of the user's own, which is not changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from boneage_cli import __version__
from boneage_cli.datasets.label_version import label_version
from boneage_cli.datasets.manifest import SPLITS, read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.files import check_writable, locked_folder, writing
from boneage_cli.json_files import read_json, write_json
from boneage_cli.progress import track

SOURCE_FILE = "SOURCE.json"
UNMATCHED_FILE = "unmatched.csv"

RSNA_TERMS = (
    "RSNA 2017 AI Challenge terms of use: research, non-commercial, no redistribution of the images"
)
RSNA_PAGE = (
    "https://www.rsna.org/artificial-intelligence/ai-image-challenge/"
    "rsna-pediatric-bone-age-challenge-2017"
)
"""RSNA's page of the data set and its terms."""
RSNA_CITATION = (
    "Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age Machine "
    "Learning Challenge. Radiology 2019;290:498-503. doi:10.1148/radiol.2018180736"
)


@dataclass(frozen=True)
class Source:
    """Contents of SOURCE.json.

    Attributes:
        name: The kind of source: demo, rsna, kaggle or local.
        requested: The requested data set: its name, or the given paths with their sizes and
            modification times.
        options: The settings that shaped the data set.
        terms: Terms of use.
        citation: The publication to cite.
        files: The archives and tables it was made from, each with ``sha256``, ``bytes`` and
            ``path`` or ``url``.
        splits: Numbers of ``images`` and ``labels`` of each split.
        validation: Origin of the validation split.
        label_version: See ``label_version.label_version``.
        date: Time of completion, UTC.
        software: The version of this package that made it.
        complete: False while it is being made.
    """

    name: str
    requested: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    terms: str = ""
    citation: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    validation: str = "none"
    label_version: str = "none"
    date: str = ""
    software: str = f"boneage {__version__}"
    complete: bool = False


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


def read_source(folder: Path) -> Source | None:
    """Reads a data set's SOURCE.json; None if there is none.

    Raises:
        BoneageError: The file is not a valid record of this package.
    """
    file = folder / SOURCE_FILE
    if not file.is_file():
        return None
    way_out = f"move {folder} out of the way and fetch again"
    record = read_json(file, way_out)
    known = {entry.name for entry in fields(Source)}
    try:
        return Source(**{key: value for key, value in record.items() if key in known})
    except TypeError as error:
        raise BoneageError(f"{file}: cannot be read ({error}); {way_out}") from None


def write_source(folder: Path, source: Source) -> None:
    """Writes a data set's SOURCE.json."""
    write_json(asdict(source), folder / SOURCE_FILE)


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
    with writing(folder, "folder with --to"):
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
        remove_dataset(folder)
    write_source(folder, source)


def remove_dataset(folder: Path) -> None:
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


def sha256(path: Path) -> str:
    """Computes a file's SHA-256, with a progress bar."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    progress: tqdm[Any] = track(
        description=f"checking {path.name}", total=size, unit="B", unit_scale=True
    )
    with progress as bar, path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
