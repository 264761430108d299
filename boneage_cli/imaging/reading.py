"""Reads one radiograph from a PNG, JPEG, TIFF, WebP or DICOM file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from boneage_cli.errors import BoneageError
from boneage_cli.imaging.depth import estimate_white
from boneage_cli.imaging.file_headers import (
    MAX_PIXELS,
    ContainerError,
    begins_as_dicom,
    open_container,
)
from boneage_cli.imaging.radiograph import Radiograph, aspect_of, negative

# Images that were squashed to a square are at most a few times as long as wide.
_LARGEST_PIXEL_RATIO = 20

# A pixel takes at most 8 bytes (16 bits in four channels); the rest is for metadata.
_BYTES_PER_PIXEL = 8
_OTHER_BYTES = 64 * 2**20

# Image libraries would also print on standard error what is raised here as an exception.
# OpenCV 4 and 5 have different names for the function.
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)


class ReadError(BoneageError):
    """An image cannot be read; the one-line message names the file and the reason."""


class NoImageError(ReadError):
    """A file that belongs to an archive of radiographs but is not an image, such as a report."""


def read_radiograph(
    path: str | os.PathLike[str],
    *,
    aspect: float | None = None,
    tags: Sequence[str] = (),
) -> Radiograph:
    """Reads a radiograph as gray pixels at the depth of its file.

    The format is recognised by content, not by suffix. Colour is converted to gray, transparency is
    composited on black, and the orientation stated in a JPEG or TIFF is applied. Thread-safe.

    Args:
        path: A PNG (8 or 16 bits), JPEG, TIFF (8 or 16 bits), WebP or DICOM file.
        aspect: Width divided by height of the original, if the stored image was squashed.
        tags: Keywords of DICOM elements whose values are returned, see ``dicom.check_tags``.

    Raises:
        ReadError: The file is missing, empty, truncated, damaged, too large, contains several
            pictures, or is not an image.
    """
    path = Path(path)
    try:
        if not path.is_file():
            kind = "folder" if path.is_dir() else "pipe or a device"
            what = f"is a {kind}, not an image" if path.exists() else "no such file"
            raise ReadError(f"{path}: {what}")
        if path.stat().st_size > MAX_PIXELS * _BYTES_PER_PIXEL + _OTHER_BYTES:
            raise ReadError(
                f"{path}: too large for an image of at most {MAX_PIXELS:,} pixels; make it smaller"
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"{path}: cannot be opened ({reason}); check its permissions") from None
    radiograph = read_radiograph_bytes(data, str(path), tags=tags)
    if aspect is not None:
        radiograph = replace(radiograph, aspect=aspect)
    height, width = radiograph.pixels.shape
    ratio = aspect_of(radiograph) * height / width
    # Filters that even out the sides of pixels would take minutes.
    if not 1 / _LARGEST_PIXEL_RATIO <= ratio <= _LARGEST_PIXEL_RATIO:
        raise ReadError(
            f"{path}: its pixels would be {ratio:.3g} times as wide as high; correct the width and "
            "the height of the original"
        )
    return radiograph


def read_radiograph_bytes(data: bytes, source: str, *, tags: Sequence[str] = ()) -> Radiograph:
    """Reads a radiograph from the content of a file.

    Args:
        data: The file's bytes.
        source: Origin of the data, for messages.
        tags: As in ``read_radiograph``.

    Raises:
        ReadError: As ``read_radiograph``.
    """
    if not data:
        raise ReadError(f"{source}: the file is empty; copy it again")
    if begins_as_dicom(data[:132]):
        # Imported here because pydicom takes a quarter of a second to import.
        from boneage_cli.imaging.dicom import DicomError, DicomNoImageError, read_dicom

        try:
            return read_dicom(data, source, tags=tags)
        except DicomNoImageError as error:
            raise NoImageError(f"{source}: {error}") from None
        except DicomError as error:
            raise ReadError(f"{source}: {error}") from None
    try:
        container = open_container(data)
    except ContainerError as error:
        raise ReadError(f"{source}: {error}") from None
    if container.width * container.height > MAX_PIXELS:
        raise ReadError(
            f"{source}: {container.width} × {container.height} pixels are more than the "
            f"{MAX_PIXELS:,} that are read; make the image smaller"
        )
    pixels = _decode(container.data, container.format)
    if pixels is None:
        raise ReadError(
            f"{source}: the {container.format} file is damaged or of an unusual kind; save it "
            "again as PNG"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ReadError(f"{source}: pixels of type {pixels.dtype}; save it with 8 or 16 bits")
    gray = _gray(pixels, composited=container.format == "TIFF" and pixels.dtype == np.uint8)
    radiograph = Radiograph(gray, container.white or estimate_white(gray), source)
    # OpenCV inverts 8-bit images with white as zero by itself.
    if container.white_is_zero and gray.dtype == np.uint16:
        return negative(radiograph)
    return radiograph


def _decode(data: bytes, format: str) -> np.ndarray | None:
    # A JPEG has no alpha and only 8 bits, and only converting modes apply its orientation.
    mode = cv2.IMREAD_GRAYSCALE if format == "JPEG" else cv2.IMREAD_UNCHANGED
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        return None


def _gray(pixels: np.ndarray, composited: bool) -> np.ndarray:
    """Converts 1, 3 (BGR) or 4 (BGRA) channels to one, with transparency on black."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGRA2GRAY)
    opaque = np.iinfo(pixels.dtype).max
    alpha = pixels[..., 3]
    # libtiff has already multiplied 8-bit colours by their alpha.
    if composited or alpha.min() == opaque:
        return gray
    return cv2.multiply(gray, alpha, scale=1 / opaque)
