"""Checks PNG, JPEG, TIFF and WebP files before decoding: image size and completeness.

Image decoders differ, between formats and releases, in whether they reject a truncated file or fill
the rest with gray, and none reports the size before allocating the pixels. Both are read here from
the container's structure, in a few microseconds per file.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

MAX_PIXELS = 100_000_000
"""Images of more pixels are refused before they are decoded; radiographs have up to 30 million."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# A file without DICOM's mark begins with one of the lowest element numbers of its group: a length,
# a version, a character set, the image type, a date, an identifier.
_LAST_FIRST_ELEMENT, _LONGEST_FIRST = 0x60, 128
DICOM_INDEX = "DICOMDIR"
"""File name of an archive's index, which is a DICOM file but not a radiograph."""
_TRUNCATED = "the file is truncated; copy or download it again"
_SEVERAL = "the file holds several pictures; save the one with the hand as a file of its own"


class ContainerError(ValueError):
    """A file cannot be decoded; the message is for the user and does not name the file."""


@dataclass(frozen=True)
class Container:
    """A complete image file with one picture.

    Attributes:
        format: "PNG", "JPEG", "TIFF" or "WebP".
        width: Width in pixels.
        height: Height in pixels.
        data: Input for the decoder: the file, or for PNG only the chunks with the picture.
        white: The intensity of white if the file states that its samples use their whole
            depth; otherwise None.
        white_is_zero: Whether low values are bright.
    """

    format: str
    width: int
    height: int
    data: bytes
    white: int | None = None
    white_is_zero: bool = False


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, whatever its suffix; False for an archive's index.

    Raises:
        OSError: The file cannot be opened.
    """
    if path.name.upper() == DICOM_INDEX or not path.is_file():
        return False
    with path.open("rb") as file:
        return begins_as_dicom(file.read(132))


def begins_as_dicom(data: bytes) -> bool:
    """Whether data contain DICOM's mark, or begin with a data element like files without it.

    DICOM PS3.10, 7.1: the mark follows after 128 bytes. Network captures and archives older than
    part 10 of the standard have neither; they begin with a short element of group 2 or 8.

    Args:
        data: At least the first 132 bytes, or the whole file if it is shorter.
    """
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8:
        return False
    group, element, representation, short = struct.unpack_from("<HH2sH", data)
    (long,) = struct.unpack_from("<I", data, 4)
    explicit = representation.isalpha() and representation.isupper()
    length = short if explicit else long
    return group in (2, 8) and element <= _LAST_FIRST_ELEMENT and 0 < length <= _LONGEST_FIRST


def open_container(data: bytes) -> Container:
    """Recognises a file by its content and checks that it is complete.

    Args:
        data: The file's bytes.

    Raises:
        ContainerError: The format is none of the four, or the file is truncated, damaged, or
            contains several pictures.
    """
    try:
        if data.startswith(_PNG_SIGNATURE):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (struct.error, IndexError):
        raise ContainerError(_TRUNCATED) from None
    if data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b":
        raise ContainerError("a compressed archive; unpack it and name the folder")
    raise ContainerError("not a PNG, JPEG, TIFF, WebP or DICOM file")


def _png(data: bytes) -> Container:
    # PNG specification (third edition), section 5: length, type, data, CRC of type and data.
    view = memoryview(data)
    kept = [view[:8]]
    position = 8
    kinds: set[bytes] = set()
    while b"IEND" not in kinds:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ContainerError(_TRUNCATED)
        # Colour profiles and texts are left out: the decoder does not use them and reports unusual
        # ones on standard error.
        if kind in _PNG_NEEDED:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[position + 4 : end - 4]) != checksum:
                raise ContainerError(
                    "the file is damaged (a PNG checksum is wrong); copy or download it again"
                )
            kept.append(view[position:end])
        elif kind == b"acTL":
            raise ContainerError(_SEVERAL)
        kinds.add(kind)
        position = end
    if not {b"IHDR", b"IDAT"} <= kinds or bytes(kept[1][4:8]) != b"IHDR":
        raise ContainerError("the file is a PNG without a picture")
    width, height, depth = struct.unpack_from(">IIB", kept[1], 8)
    # Section 11.3.2.4: if sBIT states the significant bits, samples are scaled to the full depth.
    white = 65535 if depth == 16 and b"sBIT" in kinds else None
    return Container("PNG", width, height, b"".join(kept), white=white)


def _jpeg(data: bytes) -> Container:
    precision, width, height = jpeg_frame(data)
    if precision != 8:
        raise ContainerError(f"{precision}-bit JPEG is not supported; save it as 16-bit PNG")
    return Container("JPEG", width, height, data)


def jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Returns bits per sample, width and height of a complete JPEG or JPEG-LS stream.

    Raises:
        ContainerError: The stream is truncated or damaged.
        IndexError, struct.error: The stream ends before its first scan.
    """
    # ITU-T T.81, annex B (and T.87, annex C): marker segments up to the scan, which ends with EOI.
    frame = None
    position = 2
    while data[position + 1] != 0xDA:
        if data[position] != 0xFF:
            raise ContainerError("the file is damaged (no JPEG marker where one must be)")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            frame = struct.unpack_from(">BHH", data, position + 4)
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    # Inside a scan, 0xFF is followed by a stuffed bit or a restart marker, so EOI is unambiguous.
    if data.rfind(b"\xff\xd9", position) < 0:
        raise ContainerError(_TRUNCATED)
    if frame is None:
        raise ContainerError("the file is damaged (a JPEG without a frame header)")
    precision, height, width = frame
    return precision, width, height


def _webp(data: bytes) -> Container:
    # RFC 9649, sections 2.3 to 2.7; 3.4 for the lossless header.
    (length,) = struct.unpack_from("<I", data, 4)
    if 8 + length > len(data):
        raise ContainerError(_TRUNCATED)
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 0x02:
            raise ContainerError(_SEVERAL)
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Container("WebP", width, height, data)


def _tiff(data: bytes) -> Container:
    # TIFF 6.0, section 2: the first image file directory.
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    values: dict[int, tuple[int, ...]] = {}
    for entry in range(entries):
        position = directory + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        if tag not in (256, 257, 262, 273, 277, 279, 324, 325) or code is None:
            continue
        form = f"{order}{count}{code}"
        at = position + 8
        if struct.calcsize(form) > 4:
            (at,) = struct.unpack_from(order + "I", data, at)
        if at + struct.calcsize(form) > len(data):
            raise ContainerError(_TRUNCATED)
        values[tag] = struct.unpack_from(form, data, at)
    (following,) = struct.unpack_from(order + "I", data, directory + 2 + 12 * entries)
    if following:
        raise ContainerError(_SEVERAL)
    if 256 not in values or 257 not in values:
        raise ContainerError("the file is damaged (a TIFF without a size)")
    for offsets, lengths in ((273, 279), (324, 325)):
        blocks = zip(values.get(offsets, ()), values.get(lengths, ()), strict=False)
        if any(offset + length > len(data) for offset, length in blocks):
            raise ContainerError(_TRUNCATED)
    if values.get(277, (1,))[0] == 2:
        raise ContainerError(
            "gray with an alpha channel in a TIFF is not supported; save it as PNG"
        )
    negative = values.get(262) == (0,)
    return Container("TIFF", values[256][0], values[257][0], data, white_is_zero=negative)
