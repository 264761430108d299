"""Summarises a data set in four tables: labels, bone ages, intensities and image sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from boneage_cli.ages import OLDEST_BONE_AGE
from boneage_cli.datasets.audit.audit import Audit
from boneage_cli.datasets.audit.labels import YOUNG, bone_ages

_BARS = "▁▂▃▄▅▆▇█"


class Table(NamedTuple):
    """A table of text cells; the first column names the split."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def audit_tables(audit: Audit) -> list[Table]:
    """Summarises each split; tables without rows are left out."""
    tables = [_labels(audit), _ages(audit), _intensities(audit), _sizes(audit)]
    return [table for table in tables if table.rows]


def _labels(audit: Audit) -> Table:
    rows = []
    for split, labels in audit.by_split().items():
        sexes = [row.male for row in labels]
        kinds = [finding.kind for finding in audit.findings if finding.split == split]
        numbers = (
            len(labels),
            sum(row.statistics is not None for row in labels),
            sexes.count(True),
            sexes.count(False),
            sexes.count(None),
            sum(row.boneage is not None for row in labels),
            kinds.count("boneage-nan"),
            kinds.count("boneage-infinite"),
        )
        rows.append((split, *(f"{number:,}" for number in numbers)))
    columns = ("split", "rows", "images", "boys", "girls", "no sex", "bone age", "NaN", "Inf")
    return Table("Labels", columns, rows)


def _ages(audit: Audit) -> Table:
    rows = []
    for split, labels in audit.by_split().items():
        ages = bone_ages(labels)
        if len(ages):
            counts, _ = np.histogram(ages, bins=np.arange(0, OLDEST_BONE_AGE + 1, 12))
            least, median, most = (f"{age:g}" for age in np.percentile(ages, [0, 50, 100]))
            mean = f"{ages.mean():.1f} ± {ages.std():.1f}"
            young = f"{(ages < YOUNG).mean():.0%}"
            rows.append((split, least, median, mean, most, young, _bars(counts)))
    return Table(
        "Bone age (months)",
        ("split", "min", "median", "mean ± SD", "max", f"<{YOUNG:.0f}", "by year of age"),
        rows,
        f"One bar per year, 0 to {OLDEST_BONE_AGE / 12:.0f} years.",
    )


def _intensities(audit: Audit) -> Table:
    rows = []
    for split, labels in audit.by_split().items():
        images = [row.statistics for row in labels if row.statistics]
        if images:
            means = 100 * np.array([image.mean for image in images])
            contrast = 100 * np.array([image.contrast for image in images])
            histogram = np.mean([image.histogram for image in images], axis=0)
            rows.append(
                (
                    split,
                    f"{means.mean():.1f} ± {means.std():.1f}",
                    f"{means.min():.1f}",
                    f"{means.max():.1f}",
                    f"{contrast.mean():.1f}",
                    # Two bins per bar, so that the table fits a terminal of 80 columns.
                    _bars(np.sqrt(histogram.reshape(-1, 2).sum(axis=1))),
                )
            )
    return Table(
        "Intensity (% of full white)",
        ("split", "mean ± SD", "darkest", "brightest", "contrast", "black to white"),
        rows,
        "Mean over the pixels of an image; contrast is their standard deviation. Bars: histogram "
        "of intensities, as the square root of the share of pixels.",
    )


def _sizes(audit: Audit) -> Table:
    rows: list[tuple[str, ...]] = []
    for split, labels in audit.by_split().items():
        images = [row.statistics for row in labels if row.statistics]
        if images:
            bits = sorted({image.white.bit_length() for image in images})
            stored = _extent([(image.width, image.height) for image in images])
            rows.append((split, *stored, ", ".join(map(str, bits))))
        taken = [(row.width, row.height) for row in labels if row.width and row.height]
        if taken:
            rows.append(("  original", *_extent(taken), ""))
    return Table("Image size (pixels)", ("split", "smallest", "median", "largest", "bits"), rows)


def _extent(pairs: Sequence[tuple[float, float]]) -> tuple[str, str, str]:
    """Formats the smallest size, the median of each side, and the largest size, by area."""
    sizes = np.array(pairs)
    areas = sizes[:, 0] * sizes[:, 1]
    chosen = (sizes[areas.argmin()], np.median(sizes, axis=0), sizes[areas.argmax()])
    smallest, median, largest = (f"{width:.0f} × {height:.0f}" for width, height in chosen)
    return smallest, median, largest


def _bars(heights: np.ndarray) -> str:
    """Draws one character per value: a blank for zero, a full block for the largest."""
    top = max(float(np.max(heights)), 1e-12)
    levels = np.ceil(np.asarray(heights) / top * len(_BARS)).astype(int)
    return "".join(_BARS[level - 1] if level else " " for level in levels)
