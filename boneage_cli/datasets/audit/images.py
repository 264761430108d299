"""Checks of a data set's images, individually and for duplicates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from boneage_cli.datasets.audit.findings import Finding
from boneage_cli.datasets.audit.image_statistics import ImageStatistics, image_statistics
from boneage_cli.datasets.audit.labels import LabelledImage, label_difference
from boneage_cli.datasets.folders import radiographs_below
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.progress import track
from boneage_cli.threads import worker_threads

# Limits of suspicious images, as fractions of full white: they flag 23, 35 and 9 of 12,411 RSNA
# training radiographs. The next two (ratio of the sides, pixels) flag none of these.
DARK = 10 / 255
FAINT = 8 / 255
BRIGHT_SURROUND = 0.01
EXTREME_ASPECT = 2.5
TINY = 64
# Images per task of a thread: with one image per task, scheduling costs a tenth of the work.
_CHUNK = 16


def measure_images(rows: Sequence[LabelledImage], workers: int | None = None) -> Iterator[Finding]:
    """Reads every image once and fills in the statistics of its rows.

    Args:
        rows: The rows; rows that share an image share its statistics.
        workers: Number of threads; None for one per core.

    Yields:
        A finding for each row whose image is missing or cannot be read.
    """
    by_path: dict[str, list[LabelledImage]] = {}
    for row in rows:
        if row.path:
            by_path.setdefault(row.path, []).append(row)
    # Threads suffice: decoding and measuring release the global interpreter lock.
    paths = list(by_path)
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with worker_threads(workers) as executor:
        outcomes = track(
            chain.from_iterable(executor.map(_measure_all, chunks)),
            description="Reading images",
            total=len(paths),
        )
        for owners, outcome in zip(by_path.values(), outcomes, strict=True):
            for row in owners:
                if isinstance(outcome, ImageStatistics):
                    row.statistics = outcome
                else:
                    yield row.finding(*outcome)


def _measure_all(paths: Sequence[str]) -> list[ImageStatistics | tuple[str, str]]:
    return [_measure(path) for path in paths]


def _measure(path: str) -> ImageStatistics | tuple[str, str]:
    if not Path(path).is_file():
        return "file-missing", "no such file"
    try:
        radiograph = read_radiograph(path)
    except BoneageError as error:
        return "file-unreadable", str(error)
    return image_statistics(radiograph.pixels, radiograph.white)


def image_findings(row: LabelledImage) -> Iterator[Finding]:
    """Yields the findings on one image, by its statistics."""
    image = row.statistics
    if image is None:
        return
    if image.is_constant:
        yield row.finding("constant", f"every pixel is {image.darkest:.0%} of full white")
        return
    if min(image.width, image.height) < TINY:
        yield row.finding("tiny", f"{image.width} × {image.height} pixels")
    width, height = row.original_size or (image.width, image.height)
    if max(width / height, height / width) > EXTREME_ASPECT:
        yield row.finding("extreme-aspect", f"{width:.0f} × {height:.0f} pixels")
    if image.mean < DARK:
        yield row.finding("very-dark", f"mean intensity {image.mean:.1%} of full white")
    elif image.contrast < FAINT:
        yield row.finding("faint", f"standard deviation {image.contrast:.1%} of full white")
    if image.bright_surround > BRIGHT_SURROUND:
        message = f"background brighter than the hand by {image.bright_surround:.0%} of full white"
        yield row.finding("bright-surround", message)


def repeated_pixels(rows: Iterable[LabelledImage]) -> Iterator[Finding]:
    """Yields findings on radiographs whose pixels equal those of an earlier one in any split."""
    first: dict[str, LabelledImage] = {}
    for row in rows:
        if row.statistics is None or row.statistics.is_constant:
            continue
        other = first.setdefault(row.statistics.digest, row)
        # Repeated ids are reported elsewhere.
        if other.id == row.id:
            continue
        message = f"same as {other.split} {other.id} (line {other.line})"
        message += label_difference(other, row)
        if other.split != row.split:
            yield row.finding("same-pixels-in-two-splits", message)
        elif other.path == row.path:
            yield row.finding("same-file", message)
        else:
            yield row.finding("same-pixels", message)


def unnamed_files(folder: Path, split: str, rows: Iterable[LabelledImage]) -> Iterator[Finding]:
    """Yields findings on image files in a split's folder that no row of any split refers to."""
    named = {row.path for row in rows}
    for path, _ in radiographs_below(os.path.normpath(folder.absolute() / split)):
        if path not in named:
            yield Finding("file-unnamed", "no row refers to this image", split, path=path)
