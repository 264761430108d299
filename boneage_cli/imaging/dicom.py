"""Reads a radiograph and the patient's data from a DICOM file (CR, DX or a capture)."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.multival import MultiValue
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from boneage_cli.imaging.dicom_display import displayed
from boneage_cli.imaging.dicom_elements import (
    DicomError,
    DicomNoImageError,
    numbers_of,
    text_of,
    value_of,
)
from boneage_cli.imaging.dicom_patient import age_of, laterality_of
from boneage_cli.imaging.file_headers import MAX_PIXELS, is_dicom, jpeg_frame
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.sexes import male_of

# Pixels that are longer than this, relative to their width, or the reverse, are a mistake.
_LARGEST_BELIEVED_RATIO = 4.0
# Value representations that cannot be written to a table.
_NO_TEXT = ("SQ", "OB", "OW", "OB or OW", "OD", "OF", "OL", "OV", "UN")

# Scanners write many values that violate the standard; the relevant ones are checked below.
warnings.filterwarnings("ignore", module=r"pydicom\b")


def read_dicom(data: bytes, source: str, *, tags: Sequence[str] = ()) -> Radiograph:
    """Reads a DICOM file as it is meant to be displayed: white bone on black.

    Rescale or modality LUT, the first VOI window or LUT, and the inversion of MONOCHROME1 are
    applied (DICOM PS3.3, C.7.6.3.1.2, C.11.1 and C.11.2). A file without a window keeps its stored
    values. Native, RLE, JPEG, JPEG-LS and JPEG 2000 pixel data are supported.

    Args:
        data: The file's bytes.
        source: Origin of the file, for messages.
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
        _check(dataset)
        stored = pixel_array(dataset)
    except DicomError:
        raise
    except Exception as error:  # pydicom and its decoders raise a dozen types on damaged files
        raise DicomError(
            f"the DICOM file is damaged or truncated ({_one_line(error)}); export it again"
        ) from None
    try:
        pixels, white = displayed(dataset, stored)
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(
            f"the DICOM file's window or LUT is wrong ({_one_line(error)}); export it again"
        ) from None
    header = _header(dataset, tags)
    return Radiograph(
        pixels,
        white,
        source,
        aspect=_aspect(dataset),
        male=header.male,
        age=header.age,
        age_doubt=header.age_doubt,
        laterality=header.laterality,
        tags=header.tags,
    )


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM file states of the child; see ``Radiograph``."""

    male: bool | None = None
    age: float | None = None
    age_doubt: str | None = None
    laterality: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)


def read_header(path: str | Path, tags: Sequence[str] = ()) -> DicomHeader:
    """Reads what a DICOM file states of the child, also if its image cannot be read.

    Args:
        path: The file.
        tags: As in ``read_dicom``.

    Returns:
        The header; nothing is known if it cannot be read, or the file is not DICOM.
    """
    with suppress(Exception):  # pydicom raises a dozen types on damaged files
        if is_dicom(Path(path)):
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            return _header(dataset, tags)
    return DicomHeader()


def _header(dataset: Dataset, tags: Sequence[str]) -> DicomHeader:
    return DicomHeader(
        male_of(text_of(dataset, "PatientSex")),
        *age_of(dataset),
        laterality_of(dataset),
        {name: _written(value_of(dataset, name)) for name in tags},
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
            raise DicomError(f"{name} is not a DICOM keyword{hint}")
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


def _check(dataset: Dataset) -> None:
    """Rejects anything but a single gray or colour image of a sensible size, before decoding."""
    if "DirectoryRecordSequence" in dataset:
        raise DicomError("an archive's index (DICOMDIR) and no image; name the folder it lies in")
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        # A file that was truncated early may have no elements at all.
        kind = UID(str(value_of(dataset, "SOPClassUID") or "")).name
        if kind and "Image Storage" not in kind:
            raise DicomNoImageError(f"the DICOM file holds no image ({kind})")
        raise DicomError("the DICOM file holds no image, or it is truncated; export it again")
    if "PixelData" not in dataset:
        raise DicomError("the DICOM file is truncated: it states an image but holds no pixels")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise DicomError(f"the DICOM file holds {frames} frames; export the one with the hand")
    if rows * columns > MAX_PIXELS:
        raise DicomError(
            f"{columns} × {rows} pixels are more than the {MAX_PIXELS:,} that are read; make the "
            "image smaller"
        )
    photometric = text_of(dataset, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR" or dataset.BitsAllocated not in (8, 16):
        raise DicomError(
            f"{dataset.BitsAllocated}-bit {photometric} pixels are not supported; export the image "
            "as MONOCHROME2 with 8 to 16 bits"
        )
    stored, highest = value_of(dataset, "BitsStored"), value_of(dataset, "HighBit")
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


def _aspect(dataset: Dataset) -> float | None:
    # PixelAspectRatio and spacings give the vertical before the horizontal side of a pixel.
    for name in ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing"):
        sides = numbers_of(dataset, name)
        if len(sides) != 2 or min(sides) <= 0:
            continue
        tall, wide = sides
        if max(sides) <= _LARGEST_BELIEVED_RATIO * min(sides):
            square = abs(wide / tall - 1) < 1e-3
            return None if square else dataset.Columns * wide / (dataset.Rows * tall)
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
