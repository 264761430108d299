"""Cuts the regions out of radiographs, in threads or worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from boneage_cli.batching import batched
from boneage_cli.core.explanation.overlay import overlay
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.regions.crop_folder import COLUMNS, HEAT_MAPS, Row, file_of, files_of
from boneage_cli.core.regions.locators import (
    CROPPED,
    KeyPointRegions,
    LocatedRegions,
    RegionLocator,
)
from boneage_cli.core.regions.roi_settings import RoiSettings, region_locator
from boneage_cli.core.runtime import is_on_disk
from boneage_cli.cpu_limits import usable_threads
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import LANDMARK_NAMES
from boneage_cli.imaging.png import write_png
from boneage_cli.imaging.radiograph import Radiograph, negative
from boneage_cli.imaging.registration import Region, registered_mask, render_region
from boneage_cli.imaging.warping import warp
from boneage_cli.processes import ENOUGH_FOR_PROCESSES, processes_for, worker_processes
from boneage_cli.progress import track
from boneage_cli.threads import in_turn, worker_threads


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
class CropJob:
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
                for file in files_of(self.folder, identity, True):
                    file.unlink(missing_ok=True)
        found = self.locator.locate(list(radiographs.values()))
        for (identity, radiograph), regions in zip(radiographs.items(), found, strict=True):
            for region, pixels in self._cut(radiograph, regions).items():
                write_png(file_of(self.folder, region, identity), pixels)
            picture = file_of(self.folder, HEAT_MAPS, identity)
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


def crop_all(
    job: CropJob,
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
    able = processes and len(todo) >= ENOUGH_FOR_PROCESSES and job.is_on_disk
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
def _in_threads(job: CropJob, count: int) -> Iterator[_Submit]:
    with worker_threads(count) as pool:
        yield lambda batch: pool.submit(job.crop, batch)


def _in_processes(job: CropJob, count: int) -> AbstractContextManager[_Submit]:
    make = partial(_cropper, job.folder, job.settings, job.save_heatmaps)
    return worker_processes(count, make)


def _cropper(
    folder: Path, settings: RoiSettings, save_heatmaps: bool
) -> Callable[[Mapping[str, Case]], dict[str, Row]]:
    """Returns the function with which a worker process makes crops."""
    return CropJob(folder, settings, region_locator(settings, "cpu"), save_heatmaps).crop
