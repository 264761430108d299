"""Thumbnails of radiographs for the report of an audit: samples and suspicious ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from boneage_cli.datasets.audit.audit import Audit
from boneage_cli.datasets.audit.image_statistics import ImageStatistics
from boneage_cli.datasets.audit.labels import LabelledImage
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.clahe import apply_clahe
from boneage_cli.imaging.gray_levels import in_gray_levels, to_8_bits
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.imaging.resize import resize

CLIP_LIMIT = 2.0
TILES = 8

# Kinds of findings that a thumbnail helps to understand.
_PICTURED = (
    "same-pixels-in-two-splits",
    "same-pixels",
    "same-file",
    "constant",
    "tiny",
    "extreme-aspect",
    "very-dark",
    "faint",
    "bright-surround",
)

# Quantiles of mean brightness at which each split's samples are taken.
_PLACES = (0.02, 0.5, 0.98)
_SAMPLE_HEIGHT = 300
_FLAGGED_HEIGHT = 150
_FLAGGED_PER_KIND = 12
_JPEG_QUALITY = 85


class Picture(NamedTuple):
    """A radiograph's JPEG thumbnails for the report.

    Attributes:
        caption: Its id, sex and bone age.
        jpeg: The original radiograph.
        after: The same after CLAHE; None if that is not shown.
    """

    caption: str
    jpeg: bytes
    after: bytes | None = None


def sample_pictures(audit: Audit) -> dict[str, list[Picture]]:
    """Shows a dark, a medium and a bright radiograph of each split, with and without CLAHE."""
    samples = {}
    for split, rows in audit.by_split().items():
        seen = [pair for pair in _with_statistics(rows) if not pair[1].is_constant]
        seen.sort(key=lambda pair: pair[1].mean)
        places = dict.fromkeys(round(place * (len(seen) - 1)) for place in _PLACES)
        pictures = _pictures([seen[place] for place in places] if seen else [], clahe=True)
        if pictures:
            samples[split] = pictures
    return samples


def flagged_pictures(audit: Audit, kind: str) -> list[Picture]:
    """Shows the first radiographs with one kind of finding, if thumbnails help to understand it."""
    if kind not in _PICTURED:
        return []
    rows = {(row.split, row.line): row for row in audit.rows}
    flagged = [rows[finding.split, finding.row] for finding in audit.by_kind()[kind] if finding.row]
    return _pictures(_with_statistics(flagged)[:_FLAGGED_PER_KIND], clahe=False)


def _with_statistics(
    rows: Iterable[LabelledImage],
) -> list[tuple[LabelledImage, ImageStatistics]]:
    return [(row, row.statistics) for row in rows if row.statistics]


def _pictures(
    rows: Sequence[tuple[LabelledImage, ImageStatistics]], *, clahe: bool
) -> list[Picture]:
    height = _SAMPLE_HEIGHT if clahe else _FLAGGED_HEIGHT
    pictures = []
    for row, image in rows:
        try:
            radiograph = read_radiograph(row.path)
        except BoneageError:
            # It was readable during the audit and has been removed since.
            continue
        true_width, true_height = row.true_size(image)
        # Limited, so that an image of extreme aspect fits the page.
        width = int(np.clip(round(height * true_width / true_height), height // 4, 3 * height))
        before = _jpeg(radiograph.pixels, radiograph.white, width, height)
        after = None
        if clahe:
            equalised = apply_clahe(radiograph.pixels, CLIP_LIMIT, TILES, radiograph.white)
            after = _jpeg(equalised, radiograph.white, width, height)
        pictures.append(Picture(_caption(row), before, after))
    return pictures


def _jpeg(pixels: np.ndarray, white: int, width: int, height: int) -> bytes:
    gray = to_8_bits(resize(in_gray_levels(pixels, white), width, height))
    encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return encoded.tobytes()


def _caption(row: LabelledImage) -> str:
    sex = {True: "boy", False: "girl", None: "sex unknown"}[row.male]
    age = "no bone age" if row.boneage is None else f"{row.boneage:g} months"
    return f"{row.id}: {sex}, {age}"
