"""Creates a folder of carpal and metacarpal/phalangeal crops and keeps it up to date.

A folder of crops contains::

    carpal/<id>.png metaph/<id>.png     the crops, gray, square
    heatmaps/<id>.png                   pictures for checking the crops, on request
    rois.csv                            one row per radiograph: ``COLUMNS``
    rois.json                           the settings of the crops
    digests.csv                         digests of the images' contents, with size and mtime

A row's ``key`` is a digest of everything that affects its crops: the settings, the network that
places the regions, the code, and the image. Crops without a row, or whose row has another key, are
made again. A row is removed before its crops change and written after them, so that incomplete
crops are never taken for complete ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_cli.choices import RoiMethod
from boneage_cli.core.prediction.cases import Case, manifest_cases
from boneage_cli.core.regions.crop_folder import (
    SETTINGS,
    claim,
    files_of,
    read_table,
    remove_others,
    write_table,
)
from boneage_cli.core.regions.cropping import CropJob, crop_all
from boneage_cli.core.regions.roi_settings import RoiSettings, region_locator
from boneage_cli.datasets.cache import DIGESTS, content_digests
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.names import image_stem
from boneage_cli.files import explaining_write_errors
from boneage_cli.json_files import write_json
from boneage_cli.locks import locked_folder
from boneage_cli.progress import track

# Interval at which the table is written, so that a killed run loses little, seconds.
_SAVE_EVERY = 5.0
# Minimum number of files that are digested between two updates of the progress bar.
_DIGEST_CHUNK = 500


@dataclass(frozen=True)
class RoiCrops:
    """The result of updating a folder of crops.

    Attributes:
        folder: The folder.
        method: How the regions were located.
        made: Number of radiographs whose crops were made now.
        kept: Number of radiographs whose crops were already up to date.
        fallbacks: Number of radiographs, made or kept, with a region that is a guess.
        errors: One line for each radiograph that could not be read; it has no crops.
    """

    folder: Path
    method: RoiMethod
    made: int
    kept: int
    fallbacks: int
    errors: tuple[str, ...]

    @property
    def radiographs(self) -> int:
        """Number of radiographs in all."""
        return self.made + self.kept + len(self.errors)


def locate_rois(
    cases: Iterable[Case],
    folder: Path,
    settings: RoiSettings,
    *,
    save_heatmaps: bool = False,
    relative_to: Path | None = None,
    device: str = "auto",
    batch_size: int = 16,
    workers: int | None = None,
    processes: bool = False,
) -> RoiCrops:
    """Brings a folder of crops up to date with radiographs, settings and networks.

    Crops of other radiographs from an earlier call are removed. A killed call can be repeated and
    resumes; if nothing changed, nothing is done.

    Args:
        cases: The radiographs. Crops are named by their ids, else by their files; the second of the
            same name gets ``-2``.
        folder: The folder for the crops.
        settings: How regions are located and cropped.
        save_heatmaps: Whether to draw pictures for checking the crops.
        relative_to: The folder that ``path`` in the table is relative to; None to write paths as
            given.
        device: Device of the network.
        batch_size: Radiographs per pass of the network.
        workers: Number of threads or worker processes, each of which processes whole batches; None
            for one per core.
        processes: Whether worker processes may be used, if there are at least ``ENOUGH``
            radiographs to do and OpenVINO finds the key points. See ``worker_processes`` for what
            this requires of the calling program.

    Raises:
        BoneageError: The model cannot be read or does not fit the method, or the folder contains
            crops of another program or cannot be written.
    """
    described = settings.describe()
    named = _named(cases)
    busy = f"{folder}: another 'boneage locate-rois' is writing it; wait for that"
    with explaining_write_errors(folder, "place with --output"), ExitStack() as stack:
        claim(folder)
        stack.enter_context(locked_folder(folder, busy))
        keys = _keys(named, described, folder / DIGESTS, workers)
        earlier = read_table(folder)
        paths = {identity: _path(case, relative_to) for identity, case in named.items()}
        rows = {
            row["id"]: row | {"path": paths[row["id"]]}
            for row in earlier
            if row["key"] and keys.get(row["id"]) == row["key"] and not row["error"]
            if all(file.is_file() for file in files_of(folder, row["id"], save_heatmaps))
        }
        kept = len(rows)
        todo = [identity for identity in named if identity not in rows]
        job = (
            CropJob(folder, settings, region_locator(settings, device), save_heatmaps)
            if todo
            else None
        )
        if todo or list(rows.values()) != earlier:
            # Settings first, because they mark the folder; rows are removed before crops change.
            write_json(described, folder / SETTINGS)
            write_table(folder, rows, named)
        if job:
            last = time.monotonic()
            try:
                for identity, row in crop_all(job, todo, named, batch_size, workers, processes):
                    rows[identity] = row | {"path": paths[identity], "key": keys[identity]}
                    if time.monotonic() - last > _SAVE_EVERY:
                        write_table(folder, rows, named)
                        last = time.monotonic()
            finally:
                write_table(folder, rows, named)
        remove_others(folder, rows)
    errors = tuple(row["error"] for row in rows.values() if row["error"])
    return RoiCrops(
        folder=folder,
        method=settings.method,
        made=len(rows) - kept - len(errors),
        kept=kept,
        fallbacks=sum(row["fallback"] == "True" for row in rows.values()),
        errors=errors,
    )


def locate_dataset_rois(
    dataset: Path,
    output: Path | None,
    settings: RoiSettings,
    *,
    splits: Sequence[str] | None = None,
    **options: Any,
) -> list[RoiCrops]:
    """Brings the crops of a data set's splits up to date, each in a folder named by the split.

    Args:
        dataset: The data set's folder.
        output: The parent of the splits' folders; None for ``rois-<method>`` in the data set.
        settings: How regions are located and cropped.
        splits: Names of the splits; None for all.
        options: Further arguments of ``locate_rois``.

    Raises:
        BoneageError: A split does not exist; and as ``locate_rois``.
    """
    folder = output or dataset / f"rois-{settings.method}"
    names: Sequence[str | None] = splits or [None]
    manifest = pd.concat([read_manifest(dataset, name) for name in dict.fromkeys(names)])
    return [
        locate_rois(
            manifest_cases(rows), folder / str(split), settings, relative_to=dataset, **options
        )
        for split, rows in manifest.groupby("split", sort=False)
    ]


def _named(cases: Iterable[Case]) -> dict[str, Case]:
    """Returns the radiographs by the names of their crops, which are unique and safe file names."""
    named: dict[str, Case] = {}
    for case in cases:
        stem = re.sub(r"[/\\\0]", "_", case.id or image_stem(case.path))
        name, number = stem, 2
        while name in named:
            name, number = f"{stem}-{number}", number + 1
        named[name] = case
    return named


def _keys(
    named: Mapping[str, Case], described: Mapping[str, object], memo: Path, workers: int | None
) -> dict[str, str]:
    """Returns each radiograph's digest of everything that affects its crops; "" without a file."""
    readable = [name for name, case in named.items() if os.access(case.path, os.R_OK)]
    readable = [name for name in readable if Path(named[name].path).is_file()]
    paths = [str(Path(named[name].path).absolute()) for name in readable]
    # At most about 20 chunks, since the memo is read and written once per chunk.
    step = max(_DIGEST_CHUNK, len(paths) // 20)
    digests: list[str] = []
    with track(paths, description="look for changes") as bar:
        for start in range(0, len(paths), step):
            digests += content_digests(paths[start : start + step], memo, workers)
            bar.update(len(digests) - start)
    settings = json.dumps(described, sort_keys=True)
    keys = dict.fromkeys(named, "")
    for name, digest in zip(readable, digests, strict=True):
        identity = f"{settings} {digest} {named[name].aspect}"
        keys[name] = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return keys


def _path(case: Case, relative_to: Path | None) -> str:
    if relative_to is None:
        return case.path
    return Path(os.path.relpath(case.path, relative_to)).as_posix()
