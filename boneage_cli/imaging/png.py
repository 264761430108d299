"""Writes pixels as PNG files, atomically."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from boneage_cli.files import whole_file

EXPLANATION = "boneage predict --explain"
"""The note in pictures that look like radiographs but are explanations of predictions."""
# Bytes of signature and header (PNG specification, section 5), which precede all other chunks.
_HEADER = 33


def encode_png(pixels: np.ndarray, *, quickly: bool = False) -> bytes:
    """Returns the content of a PNG file.

    Args:
        pixels: Gray (H, W), or blue, green and red (H, W, 3), uint8 or uint16.
        quickly: Whether to compress less, for files that are read again at once.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if quickly else []
    return cv2.imencode(".png", pixels, options)[1].tobytes()


def write_png(
    path: Path, pixels: np.ndarray, note: str | None = None, *, full_range: bool = False
) -> None:
    """Writes a PNG file; OpenCV's own writer leaves a partial file if the disk is full.

    Args:
        path: The file.
        pixels: As in ``encode_png``.
        note: A text stored in the file, see ``has_note``.
        full_range: Whether to state in the file that white is the maximum of its depth, so that
            readers need not estimate it from the pixels. For gray pixels only.
    """
    content = encode_png(pixels)
    chunks = b"" if note is None else _chunk(b"tEXt", _text(note))
    if full_range:
        # Section 11.3.2.4: all bits are significant.
        chunks += _chunk(b"sBIT", bytes([8 * pixels.itemsize]))
    with whole_file(path) as temporary:
        temporary.write_bytes(content[:_HEADER] + chunks + content[_HEADER:])


def has_note(path: Path, note: str, *, whole: bool = True) -> bool:
    """Whether a PNG file exists and was written with this note.

    Args:
        path: The file.
        note: The note.
        whole: Whether the file's note must be equal, or only begin with ``note``.
    """
    chunk = _chunk(b"tEXt", _text(note))
    # A prefix is compared without the chunk's length and checksum.
    start, end = (0, len(chunk)) if whole else (4, len(chunk) - 4)
    try:
        # Opening a pipe would wait for its writer.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(_HEADER + end)[_HEADER + start :] == chunk[start:end]
    except OSError:
        return False


def _text(note: str) -> bytes:
    # Section 11.3.4.3: a keyword, a zero byte, and the text.
    return b"Comment\0" + note.encode("latin-1")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
