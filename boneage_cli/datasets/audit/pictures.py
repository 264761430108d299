"""Thumbnails of radiographs for the report of an audit: samples and suspicious ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from boneage_cli.datasets.audit.audit import Audit
from boneage_cli.datasets.audit.labels import LabelledImage
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.clahe import apply_clahe
from boneage_cli.imaging.gray_levels import in_gray_levels, to_8_bits
from boneage_cli.imaging.reading import read_radiograph

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
        seen = [row for row in rows if row.statistics and not row.statistics.is_constant]
        by_brightness = sorted(seen, key=lambda row: row.statistics.mean if row.statistics else 0)
        places = dict.fromkeys(round(place * (len(seen) - 1)) for place in _PLACES)
        pictures = _pictures([by_brightness[place] for place in places] if seen else [], clahe=True)
        if pictures:
            samples[split] = pictures
    return samples


def flagged_pictures(audit: Audit, kind: str) -> list[Picture]:
    """Shows the first radiographs with one kind of finding, if thumbnails help to understand it."""
    if kind not in _PICTURED:
        return []
    rows = {(row.split, row.line): row for row in audit.rows}
    found = [rows.get((finding.split, finding.row or 0)) for finding in audit.by_kind()[kind]]
    flagged = [row for row in found if row and row.statistics]
    return _pictures(flagged[:_FLAGGED_PER_KIND], clahe=False)


def _pictures(rows: Sequence[LabelledImage], *, clahe: bool) -> list[Picture]:
    height = _SAMPLE_HEIGHT if clahe else _FLAGGED_HEIGHT
    pictures = []
    for row in rows:
        try:
            radiograph = read_radiograph(row.path)
        except BoneageError:
            # It was readable during the audit and has been removed since.
            continue
        before = _jpeg(radiograph.pixels, radiograph.white, row, height)
        after = None
        if clahe:
            equalised = apply_clahe(radiograph.pixels, CLIP_LIMIT, TILES, radiograph.white)
            after = _jpeg(equalised, radiograph.white, row, height)
        pictures.append(Picture(_caption(row), before, after))
    return pictures


def _jpeg(pixels: np.ndarray, white: int, row: LabelledImage, height: int) -> bytes:
    original = row.original_size or (pixels.shape[1], pixels.shape[0])
    # Limited, so that an image of extreme aspect fits the page.
    width = int(np.clip(round(height * original[0] / original[1]), height // 4, 3 * height))
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    gray = to_8_bits(in_gray_levels(small, white))
    encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return encoded.tobytes()


def _caption(row: LabelledImage) -> str:
    sex = {True: "boy", False: "girl", None: "sex unknown"}[row.male]
    age = "no bone age" if row.boneage is None else f"{row.boneage:g} months"
    return f"{row.id}: {sex}, {age}"
