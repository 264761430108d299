"""Recursive search for radiographs and tables in folders and zip files."""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from boneage_cli.datasets.archives import (
    extract_member,
    open_archive,
    read_beginning,
    read_member,
    safe_parts,
)
from boneage_cli.datasets.disk import require_free
from boneage_cli.datasets.folders import files_below, is_hidden
from boneage_cli.datasets.names import named_split
from boneage_cli.datasets.tables import TABLE_SUFFIXES
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.file_headers import DICOM_INDEX, begins_as_dicom, is_dicom
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES

# Names of folders with copies that other tools derive from the radiographs.
_PREPARED_FOLDERS = {"carpal", "metaph", "heatmaps", "mask", "masks"}
_PREPARED_ENDING = "_clahe"
# Zips within each other, the given one included.
_DEEPEST_ZIP = 3
_KNOWN_SUFFIXES = (*TABLE_SUFFIXES, *IMAGE_SUFFIXES, ".zip")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, loose or in a zip.

    Attributes:
        parts: The path's components, from the name of the given path to the file name.
        path: The file, or the zip that holds it.
        member: Its position in the zip's table of contents; None for a loose file.
        size: Unpacked size in bytes.
        given: True if the user named this file itself.
        archive: What messages call the zip that holds it: its path, within other zips, too.
    """

    parts: tuple[str, ...]
    path: Path
    member: int | None = None
    size: int = 0
    given: bool = False
    archive: str = ""

    def __str__(self) -> str:
        return "/".join(self.parts)

    def read(self) -> bytes:
        """Reads the file into memory."""
        if self.member is None:
            return self.path.read_bytes()
        with open_archive(self.path, self.archive) as archive:
            return read_member(archive, archive.infolist()[self.member])

    @property
    def folder_split(self) -> str | None:
        """The split named by its folders; the innermost such folder counts."""
        return next(filter(None, map(named_split, reversed(self.parts[:-1]))), None)

    @property
    def table_split(self) -> str | None:
        """The split named by a table's file name, else by its folders."""
        return named_split(PurePosixPath(self.parts[-1]).stem) or self.folder_split


@dataclass
class FoundFiles:
    """The radiographs and tables of a source, and the numbers of skipped derived copies."""

    images: list[SourceFile] = field(default_factory=list)
    tables: list[SourceFile] = field(default_factory=list)
    prepared: Counter[str] = field(default_factory=Counter)


def find_files(paths: Sequence[Path], staging: Path, exclude: Path | None = None) -> FoundFiles:
    """Lists the radiographs and tables in folders and zips, zips within zips included.

    Args:
        paths: Folders, zips, tables and single images, in order of preference.
        staging: Folder for unpacking zips within zips; the caller removes it.
        exclude: A folder that is skipped wherever it occurs.

    Returns:
        The files, without hidden files and derived copies (CLAHE, crops, heat maps, masks).

    Raises:
        BoneageError: A path does not exist or has an unknown type, a folder or file cannot be read,
            an image or table is a link to nothing, a zip is damaged or unsafe, or the disk lacks
            the space for zips within zips.
    """
    found = FoundFiles()
    for path in paths:
        if not path.exists():
            raise BoneageError(f"{path}: no such file or folder; check the spelling")
        name = path.resolve().name
        if path.is_dir():
            _search_folder(path, name, staging, exclude, found)
        elif path.suffix.lower() == ".zip":
            _search_zip(path, str(path), (name,), staging, found)
        elif not _sort_in(
            SourceFile((_called(path, name),), path, size=path.stat().st_size, given=True),
            found,
        ):
            raise BoneageError(
                f"{path}: neither a folder, a zip, a table ({', '.join(TABLE_SUFFIXES)}) nor an "
                "image"
            )
    return found


def _search_folder(
    top: Path, name: str, staging: Path, exclude: Path | None, found: FoundFiles
) -> None:
    def refuse(error: OSError) -> None:
        raise BoneageError(
            f"{error.filename}: cannot be read ({error.strerror}); check its permissions"
        )

    for here, files in files_below(top, refuse, exclude=exclude):
        parts = (name, *here.relative_to(top).parts)
        for entry in files:
            file, called = here / entry, _called(here / entry, entry)
            if called.lower().endswith((*TABLE_SUFFIXES, *IMAGE_SUFFIXES)):
                if not file.exists():
                    raise BoneageError(f"{file}: a link to nothing; correct or delete it")
                _sort_in(SourceFile((*parts, called), file, size=file.stat().st_size), found)
        # Loose files come first: they can be linked, and a zip next to them is often their origin.
        for entry in files:
            if entry.lower().endswith(".zip"):
                _search_zip(here / entry, str(here / entry), (*parts, entry), staging, found)


def _search_zip(
    path: Path,
    shown: str,
    parts: tuple[str, ...],
    staging: Path,
    found: FoundFiles,
    depth: int = 1,
) -> None:
    with open_archive(path, shown) as archive:
        for position, member in enumerate(archive.infolist()):
            inner = safe_parts(shown, member.filename)
            if member.is_dir() or not inner or any(map(is_hidden, inner)):
                continue
            if inner[-1].lower().endswith(".zip"):
                nested = "/".join((shown, *inner))
                if depth == _DEEPEST_ZIP:
                    raise BoneageError(
                        f"{nested}: within {depth} other zips, which is too deep; unpack them "
                        "yourself and give the folder"
                    )
                staging.mkdir(parents=True, exist_ok=True)
                require_free(staging, member.file_size)
                unpacked = Path(tempfile.mkdtemp(dir=staging)) / inner[-1]
                extract_member(archive, member, unpacked)
                _search_zip(unpacked, nested, (*parts, *inner), staging, found, depth + 1)
            else:
                called = (*parts, *inner[:-1], _member_called(archive, member, inner[-1]))
                file = SourceFile(called, path, position, size=member.file_size, archive=shown)
                _sort_in(file, found)


def _called(file: Path, name: str) -> str:
    """Returns a loose file's name in the data set; DICOM files without a suffix get ``.dcm``."""
    try:
        dicom = not name.lower().endswith(_KNOWN_SUFFIXES) and is_dicom(file)
    except OSError as error:
        raise BoneageError(
            f"{file}: cannot be opened ({error.strerror}); check its permissions"
        ) from None
    return f"{name}.dcm" if dicom else name


def _member_called(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> str:
    """Does the same as ``_called`` for a zip's member."""
    if name.lower().endswith(_KNOWN_SUFFIXES) or name.upper() == DICOM_INDEX:
        return name
    return f"{name}.dcm" if begins_as_dicom(read_beginning(archive, member, 132)) else name


def _sort_in(file: SourceFile, found: FoundFiles) -> bool:
    """Adds a file to the tables, radiographs or skipped copies; False if it is neither."""
    name = file.parts[-1].lower()
    if name.endswith(TABLE_SUFFIXES):
        found.tables.append(file)
    elif name.endswith(IMAGE_SUFFIXES):
        # The given path's own name is not checked: a folder that the user named is wanted.
        for folder in file.parts[1:-1]:
            if folder.lower() in _PREPARED_FOLDERS or folder.lower().endswith(_PREPARED_ENDING):
                found.prepared[folder] += 1
                return True
        found.images.append(file)
    else:
        return False
    return True
