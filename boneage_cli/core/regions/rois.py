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

import csv
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_cli.choices import RoiMethod
from boneage_cli.code_digest import IMAGING, code_digest
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.explanation.overlay import overlay
from boneage_cli.core.landmarks import CODE as LOCATING
from boneage_cli.core.landmarks import SHIPPED, LandmarkLocator
from boneage_cli.core.prediction.cases import Case, manifest_cases
from boneage_cli.core.regions.locators import (
    CROPPED,
    KeyPointRegions,
    LocatedRegions,
    RegionLocator,
    SalientPeaks,
)
from boneage_cli.core.regions.salient_regions import THRESHOLD
from boneage_cli.core.runs import BUNDLE
from boneage_cli.core.runtime import is_on_disk
from boneage_cli.datasets.cache import DIGESTS, content_digests
from boneage_cli.datasets.dialects import image_stem
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.files import locked_folder, whole_file, writing
from boneage_cli.imaging.landmarks import LANDMARK_NAMES
from boneage_cli.imaging.png import write_png
from boneage_cli.imaging.radiograph import Radiograph, negative
from boneage_cli.imaging.registration import (
    REGIONS,
    Region,
    registered_mask,
    render_region,
    warp,
)
from boneage_cli.json_files import write_json
from boneage_cli.processes import ENOUGH, processes_for, worker_processes
from boneage_cli.progress import track
from boneage_cli.threads import batched, in_turn, usable_threads, worker_threads

HEAT_MAPS = "heatmaps"
TABLE = "rois.csv"
SETTINGS = "rois.json"
COLUMNS = (
    "id",
    "path",
    "method",
    *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    *(f"{region}_{axis}{corner}" for region in CROPPED for corner in range(1, 5) for axis in "xy"),
    "confidence",
    "fallback",
    "error",
    "key",
)
_CODE = (
    IMAGING,
    Path(__file__).parent,
    # The heat maps also depend on the network's code and on the views.
    Path(__file__).parents[1] / "explanation",
    *(Path(__file__).parents[1] / name for name in ("bundle.py", "views.py")),
    Path(__file__).parents[2] / "models",
    *LOCATING,
)
# Interval at which the table is written, so that a killed run loses little, seconds.
_SAVE_EVERY = 5.0
# Minimum number of files that are digested between two updates of the progress bar.
_DIGEST_CHUNK = 500

Row = dict[str, str]


@dataclass(frozen=True)
class RoiSettings:
    """Settings of locating and cropping regions.

    Attributes:
        method: ``keypoints``: three key points place both regions in the registered hand, whatever
            its rotation, mirrored or not (Iglovikov et al. 2018). ``gradcam``: squares at the peaks
            of an age model's saliency map (HDA_Project).
        size: Side of the crops, pixels.
        background_removed: Whether everything but the hand becomes black; keypoints only.
        heatmap_threshold: Minimum heat of a peak, relative to the map's maximum; gradcam only.
        model: The age model for gradcam, a bundle or run folder; or a key-point bundle other than
            the package's.
    """

    method: RoiMethod = "keypoints"
    size: int = 192
    background_removed: bool = True
    heatmap_threshold: float = THRESHOLD
    model: Path | None = None

    def __post_init__(self) -> None:
        if self.method == "gradcam" and self.model is None:
            raise BoneageError(
                "--method gradcam: name with --model a global model that sees radiographs as they "
                "are (the package's sees registered hands)"
            )
        if self.method == "gradcam" and self.background_removed:
            raise BoneageError(
                "--background remove: the outline of the hand is sought from its key points; take "
                "--method keypoints, or --background keep"
            )

    @property
    def model_file(self) -> Path:
        """The file with the network that places the regions."""
        if self.model is None:
            return SHIPPED
        return self.model / BUNDLE if self.model.is_dir() else self.model

    def describe(self) -> dict[str, object]:
        """Returns everything that affects the crops of an image, as JSON values.

        Raises:
            BoneageError: The model cannot be read.
        """
        try:
            digest = hashlib.sha256(self.model_file.read_bytes()).hexdigest()
        except OSError as error:
            raise BoneageError(
                f"{self.model_file}: cannot be read ({error.strerror}); name a model with --model"
            ) from None
        own: dict[str, object] = (
            {"background_removed": self.background_removed, "regions": REGIONS}
            if self.method == "keypoints"
            else {"heatmap_threshold": self.heatmap_threshold}
        )
        return {
            "code_sha256": code_digest(*_CODE),
            "method": self.method,
            "size": self.size,
            **own,
            "model_sha256": digest,
        }


def region_locator(settings: RoiSettings, device: str = "auto") -> RegionLocator:
    """Loads the locator that the settings choose.

    Raises:
        BoneageError: The model cannot be read or does not fit the method.
    """
    if settings.method == "keypoints":
        return KeyPointRegions(LandmarkLocator.load(settings.model_file, device=device))
    # Imported here because it needs torch, whose import takes seconds.
    from boneage_cli.core.regions.age_saliency import AgeSaliency

    saliency = AgeSaliency(load_bundle(settings.model_file), device=device)
    return SalientPeaks(saliency, settings.heatmap_threshold)


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
    with writing(folder, "place with --output"), ExitStack() as stack:
        _claim(folder)
        stack.enter_context(locked_folder(folder, busy))
        keys = _keys(named, described, folder / DIGESTS, workers)
        earlier = _read_table(folder)
        paths = {identity: _path(case, relative_to) for identity, case in named.items()}
        rows = {
            row["id"]: row | {"path": paths[row["id"]]}
            for row in earlier
            if row["key"] and keys.get(row["id"]) == row["key"] and not row["error"]
            if all(file.is_file() for file in _files(folder, row["id"], save_heatmaps))
        }
        kept = len(rows)
        todo = [identity for identity in named if identity not in rows]
        job = (
            _Job(folder, settings, region_locator(settings, device), save_heatmaps)
            if todo
            else None
        )
        if todo or list(rows.values()) != earlier:
            # Settings first, because they mark the folder; rows are removed before crops change.
            write_json(described, folder / SETTINGS)
            _write_table(folder, rows, named)
        if job:
            last = time.monotonic()
            try:
                for identity, row in _run(job, todo, named, batch_size, workers, processes):
                    rows[identity] = row | {"path": paths[identity], "key": keys[identity]}
                    if time.monotonic() - last > _SAVE_EVERY:
                        _write_table(folder, rows, named)
                        last = time.monotonic()
            finally:
                _write_table(folder, rows, named)
        _sweep(folder, rows)
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


def draw_regions(radiograph: Radiograph, regions: LocatedRegions) -> np.ndarray:
    """Draws a picture for checking regions: heat map if any, squares and key points.

    Returns:
        uint8 (512, W, 3), blue, green, red; the carpal square green, the other yellow.
    """
    return overlay(
        radiograph,
        heat=regions.heat,
        outlines=regions.corners.items(),
        landmarks=regions.landmarks,
    )


@dataclass(frozen=True)
class _Job:
    """Everything that a worker needs to make crops."""

    folder: Path
    settings: RoiSettings
    locator: RegionLocator
    save_heatmaps: bool

    @property
    def is_on_disk(self) -> bool:
        """Whether worker processes can load the network without converting it."""
        found = self.locator
        return isinstance(found, KeyPointRegions) and is_on_disk(found.locator.run)

    def crop(self, batch: Mapping[str, Case]) -> dict[str, Row]:
        """Makes the crops of a batch; returns their rows without path and key."""
        radiographs: dict[str, Radiograph] = {}
        rows: dict[str, Row] = {}
        for identity, case in batch.items():
            try:
                radiographs[identity] = case.read()
            except BoneageError as error:
                rows[identity] = self._row(identity) | {"error": str(error)}
                for file in _files(self.folder, identity, True):
                    file.unlink(missing_ok=True)
        found = self.locator.locate(list(radiographs.values()))
        for (identity, radiograph), regions in zip(radiographs.items(), found, strict=True):
            for region, pixels in self._cut(radiograph, regions).items():
                write_png(_file(self.folder, region, identity), pixels)
            picture = _file(self.folder, HEAT_MAPS, identity)
            if self.save_heatmaps:
                write_png(picture, draw_regions(radiograph, regions))
            else:
                # A picture of an earlier call may be wrong now.
                picture.unlink(missing_ok=True)
            rows[identity] = self._row(identity, regions)
        return rows

    def _cut(self, radiograph: Radiograph, regions: LocatedRegions) -> dict[Region, np.ndarray]:
        size, landmarks = self.settings.size, regions.landmarks
        if landmarks is not None:
            hand = negative(radiograph) if regions.inverted else radiograph
            mask = registered_mask(hand, landmarks) if self.settings.background_removed else None
            return {
                region: render_region(hand, landmarks, region, size, size, mask=mask)
                for region in CROPPED
            }
        crops = {}
        for region in CROPPED:
            corners = regions.corners[region]
            sides = np.column_stack([corners[1] - corners[0], corners[3] - corners[0]])
            linear = np.linalg.inv(sides)
            place = np.column_stack([linear, -linear @ corners[0]])
            crops[region] = warp(radiograph, place, size, size)
        return crops

    def _row(self, identity: str, regions: LocatedRegions | None = None) -> Row:
        row = dict.fromkeys(COLUMNS, "") | {"id": identity, "method": self.settings.method}
        if regions is None:
            return row
        if regions.landmarks is not None:
            for name, point in zip(LANDMARK_NAMES, regions.landmarks.array(), strict=True):
                row |= {f"{name}_x": f"{point[0]:.6f}", f"{name}_y": f"{point[1]:.6f}"}
        for region, corners in regions.corners.items():
            for number, (x, y) in enumerate(corners, start=1):
                row |= {f"{region}_x{number}": f"{x:.6f}", f"{region}_y{number}": f"{y:.6f}"}
        return row | {
            "confidence": f"{regions.confidence:.4f}",
            "fallback": str(regions.fallback),
        }


_Submit = Callable[[Mapping[str, Case]], Future[dict[str, Row]]]


def _run(
    job: _Job,
    todo: Sequence[str],
    named: Mapping[str, Case],
    batch_size: int,
    workers: int | None,
    processes: bool,
) -> Iterator[tuple[str, Row]]:
    """Makes crops; yields their rows in order, as batches are finished."""
    count = workers or usable_threads()
    # Smaller batches if there are few radiographs, so that every worker gets some.
    share = max(1, min(batch_size, -(-len(todo) // count)))
    able = processes and len(todo) >= ENOUGH and job.is_on_disk
    number = processes_for(count) if able else 0
    with (
        track(todo, description="locate regions") as bar,
        _in_processes(job, number) if number else _in_threads(job, count) as submit,
    ):
        batches = batched(todo, share)
        cases = ({name: named[name] for name in batch} for batch in batches)
        for rows in in_turn(submit, cases, 2 * count):
            yield from rows.items()
            bar.update(len(rows))


@contextmanager
def _in_threads(job: _Job, count: int) -> Iterator[_Submit]:
    with worker_threads(count) as pool:
        yield lambda batch: pool.submit(job.crop, batch)


def _in_processes(job: _Job, count: int) -> AbstractContextManager[_Submit]:
    make = partial(_cropper, job.folder, job.settings, job.save_heatmaps)
    return worker_processes(count, make)


def _cropper(
    folder: Path, settings: RoiSettings, save_heatmaps: bool
) -> Callable[[Mapping[str, Case]], dict[str, Row]]:
    """Returns the function with which a worker process makes crops."""
    return _Job(folder, settings, region_locator(settings, "cpu"), save_heatmaps).crop


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


def _claim(folder: Path) -> None:
    """Creates the folder; refuses one with another program's crops, since files are deleted."""
    if not (folder / SETTINGS).is_file() and any(
        (folder / name).is_dir() and any((folder / name).iterdir())
        for name in (*CROPPED, HEAT_MAPS)
    ):
        raise BoneageError(
            f"{folder}: holds crops that 'boneage locate-rois' did not make; choose another "
            "--output, or remove them"
        )
    folder.mkdir(parents=True, exist_ok=True)


def _read_table(folder: Path) -> list[Row]:
    """Returns the rows of an earlier call; empty if there is no table with these columns."""
    try:
        with (folder / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error):
        return []
    return [row for row in rows if tuple(row) == COLUMNS and None not in row.values()]


def _path(case: Case, relative_to: Path | None) -> str:
    if relative_to is None:
        return case.path
    return Path(os.path.relpath(case.path, relative_to)).as_posix()


def _write_table(folder: Path, rows: Mapping[str, Row], order: Iterable[str]) -> None:
    with (
        whole_file(folder / TABLE) as temporary,
        # File names may contain bytes that are not UTF-8; they are written unchanged.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in order if name in rows)


def _sweep(folder: Path, rows: Mapping[str, Row]) -> None:
    """Removes crops without a row: of other radiographs, or left by a killed call."""
    for name in (*CROPPED, HEAT_MAPS):
        for file in (folder / name).glob("*.png"):
            if file.stem not in rows:
                file.unlink(missing_ok=True)


def _files(folder: Path, identity: str, with_picture: bool) -> list[Path]:
    names = (*CROPPED, HEAT_MAPS) if with_picture else CROPPED
    return [_file(folder, name, identity) for name in names]


def _file(folder: Path, name: str, identity: str) -> Path:
    return folder / name / f"{identity}.png"
