"""Reads a radiograph and the patient's data from a DICOM file (CR, DX or a capture)."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Sequence
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.multival import MultiValue
from pydicom.pixels import (
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_decoder,
    pixel_array,
)
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from boneage_cli.ages import is_childs_age
from boneage_cli.imaging.depth import full_white
from boneage_cli.imaging.file_headers import jpeg_frame
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.sexes import male_of

DAYS_PER_MONTH = 365.25 / 12
_MONTHS = {"Y": 12.0, "M": 1.0, "W": 7 / DAYS_PER_MONTH, "D": 1 / DAYS_PER_MONTH}
# Dates of the examination; archives differ in which of them they keep.
_DATES = ("StudyDate", "AcquisitionDate", "ContentDate")
# Largest accepted difference between stated and computed age, months: anonymised files more often
# have a false birth date than a false age.
_LARGEST_CONTRADICTION = 24.0

# Modalities without images: reports, presentation states, key object notes, documents, etc.
_NO_IMAGES = ("SR", "PR", "KO", "DOC", "AU", "REG", "SEG", "FID", "RWV", "PLAN", "ECG")
# Value representations that cannot be written to a table.
_NO_TEXT = ("SQ", "OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN")

# Scanners write many values that violate the standard; the relevant ones are checked below.
warnings.filterwarnings("ignore", module=r"pydicom\b")


class DicomError(ValueError):
    """A DICOM file cannot be read as a radiograph; the message does not name the file."""


class NoImageError(DicomError):
    """A DICOM file without an image, such as a report."""


def read_dicom(
    data: bytes, source: str, *, max_pixels: int, tags: Sequence[str] = ()
) -> Radiograph:
    """Reads a DICOM file as it is meant to be displayed: white bone on black.

    Rescale or modality LUT, the first VOI window or LUT, and the inversion of MONOCHROME1 are
    applied (DICOM PS3.3, C.7.6.3.1.2, C.11.1 and C.11.2). A file without a window keeps its stored
    values. Native, RLE, JPEG, JPEG-LS and JPEG 2000 pixel data are supported.

    Args:
        data: The file's bytes.
        source: Origin of the file, for messages.
        max_pixels: Maximum number of pixels; checked before decoding.
        tags: Keywords of elements whose values are returned, see ``check_tags``.

    Returns:
        The radiograph, with sex, age, laterality and pixel aspect if the file states them.
        8 bits if 8 or fewer are stored, else 16.

    Raises:
        DicomError: The file is damaged or truncated, has no image, several frames or an unsupported
            kind of pixels, or is too large.
    """
    # A deflated data set can be a thousand times its file's size; radiographs are not deflated.
    if DeflatedExplicitVRLittleEndian.encode() in data[:1024]:
        raise DicomError("deflated DICOM is not supported; export it uncompressed or as JPEG 2000")
    try:
        dataset = _dataset(data)
        _check(dataset, max_pixels)
        stored = pixel_array(dataset)
    except DicomError:
        raise
    except Exception as error:  # pydicom and its decoders raise a dozen types on damaged files
        raise DicomError(
            f"the DICOM file is damaged or truncated ({_one_line(error)}); export it again"
        ) from None
    try:
        pixels, white = _displayed(dataset, stored)
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(
            f"the DICOM file's window or LUT is wrong ({_one_line(error)}); export it again"
        ) from None
    return Radiograph(
        pixels,
        white,
        source,
        aspect=_aspect(dataset),
        male=male_of(_text(dataset, "PatientSex")),
        age=_age(dataset),
        laterality=_laterality(dataset),
        tags={name: _written(_value(dataset, name)) for name in tags},
    )


def check_tags(names: Sequence[str]) -> None:
    """Checks that names are keywords of DICOM elements with a text, date or number.

    Args:
        names: Keywords of DICOM PS3.6, such as ``AccessionNumber``.

    Raises:
        DicomError: A name is not such a keyword; the message suggests the nearest.
    """
    for name in names:
        tag = tag_for_keyword(name)
        if tag is None:
            known = {entry[4].lower(): entry[4] for entry in DicomDictionary.values()}
            near = get_close_matches(name.lower(), known, 1)
            hint = f"; did you mean {known[near[0]]}?" if near else "; see DICOM PS3.6"
            raise DicomError(f"{name} is no keyword of a DICOM element{hint}")
        if dictionary_VR(tag) in _NO_TEXT:
            raise DicomError(f"{name} is no text, date or number; leave it out")


def _written(value: Any) -> str | None:
    """Returns a value as text, multiple values separated by backslashes; None if empty.

    Null characters, with which some archives pad, are removed: a table with one is no text.
    """
    values = value if isinstance(value, MultiValue) else [] if value is None else [value]
    return "\\".join(str(each).replace("\0", "") for each in values) or None


def _dataset(data: bytes) -> Dataset:
    # Forced, because old archives lack the preamble and the meta information on the encoding.
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _ = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _check(dataset: Dataset, max_pixels: int) -> None:
    """Rejects anything but a single gray or colour image of a sensible size, before decoding."""
    if "DirectoryRecordSequence" in dataset:
        raise DicomError("an archive's index (DICOMDIR) and no image; name the folder it lies in")
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        # A file that was truncated early may have no elements at all.
        kind = _text(dataset, "Modality")
        if kind in _NO_IMAGES:
            raise NoImageError(f"the DICOM file holds no image ({kind})")
        raise DicomError(f"the DICOM file holds no image ({kind or 'or it is truncated'})")
    if "PixelData" not in dataset:
        raise DicomError("the DICOM file is truncated: it states an image but holds no pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DicomError(f"the DICOM file holds {frames} frames; export the one with the hand")
    if rows * columns > max_pixels:
        raise DicomError(
            f"{columns} × {rows} pixels are more than the {max_pixels:,} that are read; make the "
            "image smaller"
        )
    photometric = _text(dataset, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR" or dataset.BitsAllocated not in (8, 16):
        raise DicomError(
            f"{dataset.BitsAllocated}-bit {photometric} pixels are not supported; export the image "
            "as MONOCHROME2 with 8 to 16 bits"
        )
    stored, highest = _value(dataset, "BitsStored"), _value(dataset, "HighBit")
    if stored and highest is not None and highest != stored - 1:
        raise DicomError(
            f"{stored}-bit pixels that end at bit {highest} are not supported; export the image "
            "as MONOCHROME2 with 8 to 16 bits"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if not _can_decode(syntax):
        raise DicomError(
            f"its pixels are stored as {syntax.name}, which is not supported; export it "
            "uncompressed or as JPEG 2000"
        )
    if syntax.is_encapsulated and syntax != RLELossless:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
        size = _stream_size(stream)
        if size != (columns, rows):
            raise DicomError(
                f"the DICOM file is damaged: it states {columns} × {rows} pixels, its picture "
                f"{size[0]} × {size[1]}"
            )


def _can_decode(syntax: UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _stream_size(stream: bytes) -> tuple[int, int]:
    """Returns the width and height stated in a compressed stream."""
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return jpeg_frame(stream)[1:]
    # ITU-T T.800, annex A.5.1: size and offset of the reference grid. Decoders silently fill in the
    # rest of a truncated stream.
    if stream.rfind(b"\xff\xd9", start) < 0:
        raise DicomError("the DICOM file is damaged: its JPEG 2000 picture is truncated")
    right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
    return right - left, bottom - top


def _displayed(dataset: Dataset, stored: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the pixels as they are meant to be displayed, and the intensity of full white."""
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.ndim == 3:
        pixels = cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
        return pixels, full_white(pixels)
    bits = int(dataset.BitsStored)
    if bits <= 8 and stored.dtype == np.uint16:
        stored = stored.astype(np.uint8)
    padding = _padding(dataset, stored)
    # Padding must not influence the range of intensities.
    used = stored if padding is None or padding.all() else stored[~padding]
    inverted = _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    if _shown_as_stored(dataset):
        white = 255 if bits <= 8 else full_white(used) if bits == 16 else 2**bits - 1
        pixels = np.minimum(stored, stored.dtype.type(white))
        if inverted:
            pixels = stored.dtype.type(white) - pixels
    else:
        white = 255 if bits <= 8 else 65535
        kind = np.iinfo(stored.dtype)
        values = np.arange(kind.min, kind.max + 1)
        shares = _shown(dataset, values, used)
        table = np.rint((1 - shares if inverted else shares) * white)
        table = table.astype(np.uint8 if bits <= 8 else np.uint16)
        pixels = table[stored if kind.min == 0 else stored.astype(np.int32) - kind.min]
    if padding is not None:
        pixels[padding] = 0
    return pixels, white


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray | None:
    """Returns the mask of padding pixels; None if the file states no padding value."""
    padding = _value(dataset, "PixelPaddingValue")
    if padding is None:
        return None
    limit = _value(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((int(padding), int(padding if limit is None else limit)))
    fills: np.ndarray = (stored >= low) & (stored <= high)
    return fills


def _shown_as_stored(dataset: Dataset) -> bool:
    # Without a window, a rescaling with a positive slope does not change the displayed image.
    slope = _slope(dataset)
    return (
        dataset.PixelRepresentation == 0
        and not _has_window(dataset)
        and not dataset.get("VOILUTSequence")
        and not dataset.get("ModalityLUTSequence")
        and (slope is None or slope > 0)
    )


def _has_window(dataset: Dataset) -> bool:
    # PS3.3, C.11.2.1.2.1 and C.11.2.1.3: narrower windows are invalid. Exports write 0 if unset.
    width = _first(_value(dataset, "WindowWidth"))
    least = 1.0 if _text(dataset, "VOILUTFunction") in ("", "LINEAR") else 1e-9
    return _first(_value(dataset, "WindowCenter")) is not None and (width or 0) >= least


def _slope(dataset: Dataset) -> float | None:
    """Returns the rescale slope; None if it is missing, or 0, which would erase the image."""
    return _first(_value(dataset, "RescaleSlope")) or None


def _first(value: Any) -> float | None:
    """Returns a number, or the first of several; None if there is none."""
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None else float(value)


def _shown(dataset: Dataset, values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Returns the display brightness, 0 to 1, for each stored value."""
    rescaled = _slope(dataset) is not None or dataset.get("ModalityLUTSequence")
    modality = apply_modality_lut(values, dataset) if rescaled else values
    if dataset.get("VOILUTSequence"):
        shown = apply_voi(np.rint(modality).astype(np.int32), dataset, index=0)
        black, white = 0.0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif _has_window(dataset):
        with np.errstate(over="ignore"):
            shown = apply_windowing(modality, dataset, index=0)
            black, white = apply_windowing(np.array([-1e9, 1e9]), dataset, index=0)
    else:
        shown = modality
        ends = modality[np.array([used.min(), used.max()], np.int32) - values[0]]
        black, white = ends.min(), ends.max()
        if white == black:
            raise DicomError("all pixels of the DICOM file have one value; export it again")
    if white == black:
        raise ValueError("all values look the same")
    return np.clip((shown - black) / (white - black), 0, 1)


def _aspect(dataset: Dataset) -> float | None:
    # PixelAspectRatio and spacings give the vertical before the horizontal side of a pixel.
    for name in ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing"):
        sides = _value(dataset, name)
        if sides is None or len(sides) != 2:
            continue
        tall, wide = float(sides[0]), float(sides[1])
        if tall > 0 and wide > 0:
            square = abs(wide / tall - 1) < 1e-3
            return None if square else dataset.Columns * wide / (dataset.Rows * tall)
    return None


def _age(dataset: Dataset) -> float | None:
    """Returns the age in months, from the dates or, without them, as stated; None if unknown.

    The dates are preferred, because ages stated in whole years are rounded down. None if dates and
    stated age contradict each other. A stated age of 0 years means unknown.
    """
    match = re.fullmatch(r"(\d{1,3})([DWMY])", _text(dataset, "PatientAge"))
    stated = int(match[1]) * _MONTHS[match[2]] if match else None
    if match and match[2] == "Y" and not stated:
        stated = None
    birth = _date(dataset, "PatientBirthDate")
    taken = next(filter(None, (_date(dataset, name) for name in _DATES)), None)
    if birth is None or taken is None:
        return stated
    counted = (taken - birth).days / DAYS_PER_MONTH
    if not is_childs_age(counted):
        return stated
    if stated is not None and abs(counted - stated) > _LARGEST_CONTRADICTION:
        return None
    return counted


def _date(dataset: Dataset, name: str) -> date | None:
    # Files from before 1993 (ACR-NEMA) have dates like 1992.11.05.
    digits = _text(dataset, name).replace(".", "")
    try:
        return datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None


def _laterality(dataset: Dataset) -> str | None:
    for name in ("ImageLaterality", "Laterality"):
        side = _text(dataset, name)
        if side in ("L", "R"):
            return side
    return None


def _text(dataset: Dataset, name: str) -> str:
    return str(_value(dataset, name) or "").strip().upper()


def _value(dataset: Dataset, name: str) -> Any:
    """Returns an element's value; None if it is missing, empty, or violates the standard."""
    try:
        return dataset.get(name)
    except Exception:  # values are parsed on access and may raise any exception
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
