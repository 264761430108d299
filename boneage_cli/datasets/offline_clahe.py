"""Writes CLAHE copies of a data set's splits or of any radiographs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from boneage_cli.code_digest import IMAGING, code_digest
from boneage_cli.datasets.folders import radiographs_below
from boneage_cli.datasets.manifest import read_manifest, write_manifest
from boneage_cli.datasets.names import image_stem
from boneage_cli.errors import BoneageError
from boneage_cli.files import is_below
from boneage_cli.imaging.clahe import apply_clahe
from boneage_cli.imaging.png import has_note, write_png
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import ReadError, read_radiograph
from boneage_cli.imaging.resize import resize
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES
from boneage_cli.json_files import read_json, write_json
from boneage_cli.locks import locked_folder
from boneage_cli.progress import track
from boneage_cli.threads import worker_threads

_SUFFIX = "_CLAHE"
_SETTINGS_FILE = "CLAHE.json"

# BoneAge's published values: clip limit 2 and 64 × 64 tiles, for validation and test only.
CLIP_LIMIT = 2.0
TILES = 64
DEFAULT_SPLITS = ("validation", "test")


# Prefix of the note in each copy's PNG metadata.
_MARK = "boneage clahe "


@dataclass(frozen=True)
class ClaheCopies:
    """Result of copying radiographs into one folder.

    Attributes:
        folder: Folder of the copies.
        made: Number of copies made now.
        kept: Number of existing copies, of the same files with the same settings.
        errors: One line for each radiograph or folder that could not be read; it has no copy.
    """

    folder: Path
    made: int
    kept: int
    errors: tuple[str, ...]


def clahe_split(
    dataset: Path,
    split: str,
    *,
    clip_limit: float = CLIP_LIMIT,
    tiles: int = TILES,
    workers: int | None = None,
) -> ClaheCopies:
    """Copies a split of a data set with CLAHE: ``<split>_CLAHE/`` and ``<split>_CLAHE.csv``.

    The CSV has the split's own columns, so that ``read_manifest(dataset, "test_CLAHE")`` reads the
    copies like any other split. Unreadable radiographs are in neither.

    Args:
        dataset: The data set's folder.
        split: The split's name.
        clip_limit: As for ``apply_clahe``.
        tiles: Number of tiles across and down.
        workers: Number of threads; None for one per core.

    Raises:
        BoneageError: There is no such split, two of its images have one name, or a copy cannot be
            written.
    """
    manifest = read_manifest(dataset, split)
    folder = dataset / f"{split}{_SUFFIX}"
    targets = [_beside(Path(path)).name for path in manifest["path"]]
    sources = _pair(targets, map(Path, manifest["path"]))
    copies = _copy(sources, folder, clip_limit, tiles, workers)
    made = np.array([(folder / target).is_file() for target in targets])
    rows = manifest.assign(
        path=[f"{folder.name}/{target}" for target in targets], split=folder.name
    )
    if made.any():
        write_manifest(rows[made], dataset)
    else:
        (dataset / f"{folder.name}.csv").unlink(missing_ok=True)
    return copies


def clahe_files(
    inputs: Sequence[Path],
    folder: Path,
    *,
    clip_limit: float = CLIP_LIMIT,
    tiles: int = TILES,
    workers: int | None = None,
) -> ClaheCopies:
    """Copies radiographs with CLAHE to PNG files; folders are searched recursively.

    Args:
        inputs: Radiographs and folders of them. Files below a folder keep their relative paths.
        folder: Folder of the copies.
        clip_limit: As for ``apply_clahe``.
        tiles: Number of tiles across and down.
        workers: Number of threads; None for one per core.

    Raises:
        BoneageError: An input does not exist, there are no radiographs, two of them have one name,
            or a copy cannot be written.
    """
    targets: list[str] = []
    files: list[Path] = []
    closed: list[str] = []
    for item in inputs:
        if item.exists() and is_below(item, folder):
            raise BoneageError(f"{item}: lies in {folder}, where its copy goes; choose another")
        if item.is_dir():
            for name, error in radiographs_below(item, warn=True):
                path = Path(name)
                if error is not None:
                    closed.append(f"{path}: {error}")
                elif not is_below(path, folder):
                    targets.append(_beside(path).relative_to(item).as_posix())
                    files.append(path)
        elif item.exists():
            targets.append(_beside(item).name)
            files.append(item)
        else:
            raise BoneageError(f"{item}: no such file or folder; check --input")
    if not files and not closed:
        names = ", ".join(map(str, inputs))
        raise BoneageError(f"{names}: no radiographs below ({', '.join(IMAGE_SUFFIXES)})")
    copies = _copy(_pair(targets, files), folder, clip_limit, tiles, workers)
    return replace(copies, errors=(*copies.errors, *closed))


def _beside(path: Path) -> Path:
    """Returns a radiograph's path with the suffix .png; dots in a DICOM UID are no suffix."""
    return path.with_name(f"{image_stem(str(path))}.png")


def _pair(targets: Iterable[str], sources: Iterable[Path]) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for target, source in zip(targets, sources, strict=True):
        other = pairs.setdefault(target, source)
        if other != source:
            raise BoneageError(f"{source}: its copy would have the name of {other}'s; rename one")
    return pairs


def _copy(
    sources: Mapping[str, Path],
    folder: Path,
    clip_limit: float,
    tiles: int,
    workers: int | None,
) -> ClaheCopies:
    if not _is_of_clahe(folder):
        raise BoneageError(
            f"{folder}: holds files that 'boneage clahe' did not make; move them or choose another "
            "folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder, f"{folder}: another 'boneage clahe' is writing it; wait for that"):
        _prepare(folder, {"clip_limit": clip_limit, "tiles": tiles})
        todo = {
            folder / target: source
            for target, source in sources.items()
            if not has_note(folder / target, _version_of(source))
        }
        # Threads suffice: decoding, CLAHE and encoding release the global interpreter lock.
        with worker_threads(workers) as executor:
            outcomes = executor.map(
                partial(_copy_one, clip_limit=clip_limit, tiles=tiles), todo.values(), todo
            )
            bar = track(outcomes, description=f"write {folder.name}", total=len(todo))
            errors = tuple(error for error in bar if error is not None)
    return ClaheCopies(folder, len(todo) - len(errors), len(sources) - len(todo), errors)


def _is_of_clahe(folder: Path) -> bool:
    """Whether a folder is new, empty, or one of copies."""
    if (folder / _SETTINGS_FILE).is_file() or not folder.exists():
        return True
    return folder.is_dir() and not any(folder.iterdir())


def _prepare(folder: Path, settings: dict[str, float]) -> None:
    """Notes the settings in the folder of copies; deletes copies made with other settings."""
    note = folder / _SETTINGS_FILE
    with suppress(BoneageError):
        if read_json(note) == settings:
            return
    # Old copies are deleted before the settings file changes, so that after an interruption none
    # is mistaken for a new one.
    for path in folder.rglob("*.png"):
        if has_note(path, _MARK, whole=False):
            path.unlink()
    write_json(settings, note)


def _version_of(source: Path) -> str:
    """Identifies the version of the source file and of the code; stored in the copy."""
    try:
        status = source.stat()
    except OSError:
        return "no file"
    identity = f"{source.absolute()} {status.st_size} {status.st_mtime_ns} {code_digest(IMAGING)}"
    return f"{_MARK}{hashlib.sha256(os.fsencode(identity)).hexdigest()}"


def _square(radiograph: Radiograph) -> np.ndarray:
    """Returns the pixels with the shape that DICOM files state; a PNG cannot state it.

    The side along which the image was squashed is enlarged, so that no detail is lost.
    """
    pixels = radiograph.pixels
    height, width = pixels.shape
    if radiograph.aspect is None:
        return pixels
    new_width, new_height = round(height * radiograph.aspect), round(width / radiograph.aspect)
    width, height = (new_width, height) if new_width >= width else (width, new_height)
    square = resize(pixels.astype(np.float32), width, height)
    return np.rint(square).astype(pixels.dtype)


def _copy_one(source: Path, target: Path, *, clip_limit: float, tiles: int) -> str | None:
    """Makes one copy; returns the error if the radiograph cannot be read."""
    version = _version_of(source)
    try:
        radiograph = read_radiograph(source)
    except ReadError as error:
        # An existing copy is of an earlier version of the file.
        target.unlink(missing_ok=True)
        return str(error)
    pixels = apply_clahe(_square(radiograph), clip_limit, tiles, radiograph.white)
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels * np.float32(65535 / radiograph.white)).astype(np.uint16)
    try:
        write_png(target, pixels, version, full_range=True)
    except OSError as error:
        raise BoneageError(
            f"{target}: cannot be written ({error.strerror}); make room or fix the permissions, "
            "then run again"
        ) from None
    return None
