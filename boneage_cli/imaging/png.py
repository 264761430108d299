"""Pixels as PNG files, whole or not at all."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from boneage_cli.files import whole_file

EXPLANATION = "boneage predict --explain"
"""The note of pictures that are no radiographs, though they look like one."""
# Signature and header (PNG specification, section 5), which every other chunk comes after.
_HEADER = 33


def encode_png(pixels: np.ndarray, *, quickly: bool = False) -> bytes:
    """A PNG file's content.

    Args:
        pixels: Gray (H, W), or blue, green and red (H, W, 3), uint8 or uint16.
        quickly: For one that is read again at once: speed matters, size does not.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if quickly else []
    return cv2.imencode(".png", pixels, options)[1].tobytes()


def write_png(
    path: Path, pixels: np.ndarray, note: str | None = None, *, full_range: bool = False
) -> None:
    """Writes a PNG file; OpenCV's own writer leaves a part of one where the disk is full.

    Args:
        path: The file.
        pixels: As in ``encode_png``.
        note: A line that the file carries, see ``has_note``.
        full_range: Whether the file says that white is the greatest number of its depth, so that
            nobody has to guess it, however dark the pixels are. They are gray.
    """
    content = encode_png(pixels)
    chunks = b"" if note is None else _chunk(b"tEXt", _text(note))
    if full_range:
        # Section 11.3.2.4: all bits are significant.
        chunks += _chunk(b"sBIT", bytes([8 * pixels.itemsize]))
    with whole_file(path) as temporary:
        temporary.write_bytes(content[:_HEADER] + chunks + content[_HEADER:])


def has_note(path: Path, note: str, *, whole: bool = True) -> bool:
    """Whether there is a PNG file that was written with this note.

    Args:
        path: The file.
        note: The note.
        whole: Whether it is all of the note, and not how it begins.
    """
    chunk = _chunk(b"tEXt", _text(note))
    # Behind the chunk's length, and before the sum that checks it.
    start, end = (0, len(chunk)) if whole else (4, len(chunk) - 4)
    try:
        with path.open("rb") as file:
            return file.read(_HEADER + end)[_HEADER + start :] == chunk[start:end]
    except OSError:
        return False


def _text(note: str) -> bytes:
    # Section 11.3.4.3: a keyword, a zero byte, and the text.
    return b"Comment\0" + note.encode("latin-1")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
