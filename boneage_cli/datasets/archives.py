"""Safe reading of zip files from untrusted sources.

A zip can name files outside of the folder that it is unpacked to, and a small one can unpack to
fill a disk. Both are refused before anything is written.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boneage_cli.datasets.disk import readable_bytes
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file

# Radiographs hardly compress and labels about tenfold; zip bombs a thousandfold.
_LARGEST_RATIO = 200
# Below this size the ratio is not checked: an empty TIFF compresses as well as a zip bomb.
_HARMLESS_BYTES = 256_000_000
_MOST_MEMBERS = 500_000

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def open_archive(path: Path, shown: str = "") -> zipfile.ZipFile:
    """Opens a zip file after checking its table of contents.

    Args:
        path: The zip file.
        shown: What messages call it; empty for its path.

    Returns:
        The open archive; the caller closes it.

    Raises:
        BoneageError: It is not a zip, is encrypted, would unpack to more than 200 times its size,
            or holds a link or a path outside of itself.
    """
    shown = shown or str(path)
    try:
        archive = zipfile.ZipFile(path)
    except (*_DAMAGE, OSError) as error:
        raise BoneageError(f"{shown}: not a readable zip ({error}); get it again") from None
    # Used in messages only.
    archive.filename = shown
    try:
        _check(shown, path.stat().st_size, archive.infolist())
    except BaseException:
        archive.close()
        raise
    return archive


def _check(shown: str, size: int, members: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(member.file_size for member in members)
    if len(members) > _MOST_MEMBERS:
        raise BoneageError(f"{shown}: {len(members):,} files; more than a data set holds, refused")
    if unpacked > max(_LARGEST_RATIO * size, _HARMLESS_BYTES):
        raise BoneageError(
            f"{shown}: {readable_bytes(size)} would unpack to "
            f"{readable_bytes(unpacked)}, which looks like a decompression bomb; if you trust it, "
            "unpack it yourself and give the folder"
        )
    for member in members:
        safe_parts(shown, member.filename)
        if member.flag_bits & 1:
            raise BoneageError(f"{shown}: encrypted; unpack it yourself and give the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BoneageError(
                f"{shown}: {member.filename!r} is a link; unpack it yourself and give the folder"
            )


def safe_parts(shown: str, name: str) -> tuple[str, ...]:
    """Splits a member's name into folders and file, refusing paths outside of the archive.

    Args:
        shown: The archive, for the message.
        name: The member's name in the archive; a backslash counts as a separator.

    Returns:
        The names from the outermost folder to the file; joined to a folder they stay below it.

    Raises:
        BoneageError: The name is absolute, climbs with ``..``, or names a drive.
    """
    slashed = name.replace("\\", "/")
    parts = tuple(part for part in slashed.split("/") if part not in ("", "."))
    if slashed.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", slashed) or "\0" in name:
        raise BoneageError(f"{shown}: {name!r} leads outside of the archive, refused")
    return parts


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Reads one member into memory.

    Raises:
        BoneageError: The member is damaged.
    """
    with _unpacking(archive, member):
        return archive.read(member)


def read_beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> bytes:
    """Reads the first bytes of a member.

    Raises:
        BoneageError: The member is damaged.
    """
    with _unpacking(archive, member), archive.open(member) as packed:
        return packed.read(size)


def extract_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Writes one member to a file, completely or not at all.

    Args:
        archive: An archive from ``open_archive``.
        member: One of its entries.
        target: The file to write; never taken from the archive's own names.

    Raises:
        BoneageError: The member is damaged.
    """
    try:
        with (
            _unpacking(archive, member),
            whole_file(target) as temporary,
            archive.open(member) as packed,
            temporary.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    except OSError as error:
        raise BoneageError(
            f"{target}: {error.strerror}; make room or fix the permissions, then run again"
        ) from None


@contextmanager
def _unpacking(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[None]:
    """Turns unpacking errors into a BoneageError that names the member."""
    what = f"{archive.filename}: {member.filename!r}"
    try:
        yield
    except NotImplementedError:
        raise BoneageError(
            f"{what} is packed by a method that Python cannot read; unpack it with 7-Zip and give "
            "the folder"
        ) from None
    except _DAMAGE as error:
        raise BoneageError(f"{what} is damaged ({error}); get it again") from None
    except OSError as error:
        # Errors of the disk have an errno, those of damaged bzip2 data have none.
        if error.errno is not None:
            raise
        raise BoneageError(f"{what} is damaged ({error}); get it again") from None
