"""Making sense of folders and zips of radiographs and label tables, however they are arranged.

A radiograph is known by the stem of its file, a label by its id. Which split they belong to is
told by a ``split`` column, by the names of tables and folders (``RSNA_val``,
``boneage-test-dataset``), or for RSNA's test set by its ids.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from boneage_cli.datasets.archives import extract_member, open_archive, read_member, safe_parts
from boneage_cli.datasets.dialects import (
    TABLE_SUFFIXES,
    UnknownHeadings,
    image_stem,
    named_split,
    read_table,
)
from boneage_cli.datasets.manifest import IMAGE_SUFFIXES, RSNA_TEST_IDS, SPLITS
from boneage_cli.errors import BoneageError

# Copies that tools of this field prepare beside the radiographs.
PREPARED_FOLDERS = {"carpal", "metaph", "heatmaps", "masks"}
PREPARED_ENDING = "_clahe"
DEEPEST_ZIP_IN_ZIP = 3


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, loose or in a zip.

    Attributes:
        parts: Its names from the given path's own to the file's.
        path: The file, or the zip that holds it.
        member: Its position in the zip's table of contents; None for a loose file.
        size: Bytes, unpacked.
        given: True where the user named this very file.
    """

    parts: tuple[str, ...]
    path: Path
    member: int | None = None
    size: int = 0
    given: bool = False

    def __str__(self) -> str:
        return "/".join(self.parts)

    def read(self) -> bytes:
        """Reads the file into memory."""
        if self.member is None:
            return self.path.read_bytes()
        with open_archive(self.path) as archive:
            return read_member(archive, archive.infolist()[self.member])

    @property
    def folder_split(self) -> str | None:
        """The split that its folders speak of, the innermost first."""
        return next(filter(None, map(named_split, reversed(self.parts[:-1]))), None)

    @property
    def table_split(self) -> str | None:
        """The split that a table's own name speaks of, else its folders."""
        return named_split(PurePosixPath(self.parts[-1]).stem) or self.folder_split


@dataclass
class Findings:
    """The radiographs and tables of a source, and the number of prepared copies left alone."""

    images: list[SourceFile] = field(default_factory=list)
    tables: list[SourceFile] = field(default_factory=list)
    prepared: Counter[str] = field(default_factory=Counter)


@dataclass
class Arrangement:
    """Which radiograph goes where.

    Attributes:
        table: One row per radiograph: ``id``, ``split``, ``boneage``, ``male``, ``file`` (a
            ``SourceFile``) and, where known, ``patient``, ``width``, ``height``.
        unmatched: ``id``, ``problem`` and ``source`` of what fits nothing.
        tables: The tables that were used, with their contents.
        notes: What a user should know.
        warnings: What a user should look at.
    """

    table: pd.DataFrame
    unmatched: pd.DataFrame
    tables: list[tuple[SourceFile, bytes]]
    notes: list[str]
    warnings: list[str]


@dataclass
class _Label:
    """What the tables say of one radiograph."""

    id: str
    boneage: float | None
    male: bool | None
    patient: str | None
    chosen_split: str | None
    named_split: str | None
    source: str
    used: bool = False


def find_files(paths: Sequence[Path], staging: Path, exclude: Path | None = None) -> Findings:
    """Lists the radiographs and tables in folders and zips, zips within zips included.

    Args:
        paths: Folders, zips, tables and single images, in order of preference.
        staging: A folder for zips that lie within zips; the caller removes it.
        exclude: A folder that is passed over wherever it turns up.

    Returns:
        What was found; hidden files and prepared copies (CLAHE, crops, heat maps, masks) left out.

    Raises:
        BoneageError: A path does not exist or is of no use, or a zip is damaged or unsafe.
    """
    findings = Findings()
    for path in paths:
        if not path.exists():
            raise BoneageError(f"{path}: no such file or folder")
        name = path.resolve().name
        if path.is_dir():
            _search_folder(path, name, staging, exclude, findings)
        elif path.suffix.lower() == ".zip":
            _search_zip(path, (name,), staging, findings)
        elif not _sort_in(
            SourceFile((name,), path, size=path.stat().st_size, given=True), findings
        ):
            raise BoneageError(
                f"{path}: neither a folder, a zip, a table ({', '.join(TABLE_SUFFIXES)}) nor an "
                "image"
            )
    return findings


def _search_folder(
    top: Path, name: str, staging: Path, exclude: Path | None, findings: Findings
) -> None:
    excluded = exclude.resolve() if exclude else None
    for folder, below, files in os.walk(top):
        here = Path(folder)
        below[:] = sorted(
            entry
            for entry in below
            if not _is_hidden(entry) and (here / entry).resolve() != excluded
        )
        parts = (name, *here.relative_to(top).parts)
        files = sorted(entry for entry in files if not _is_hidden(entry))
        for entry in files:
            if entry.lower().endswith((*TABLE_SUFFIXES, *IMAGE_SUFFIXES)):
                file = here / entry
                if not file.exists():
                    raise BoneageError(f"{file}: a link to nothing; mend or delete it")
                _sort_in(SourceFile((*parts, entry), file, size=file.stat().st_size), findings)
        # Loose files come first: they can be linked, and a zip beside them is often their origin.
        for entry in files:
            if entry.lower().endswith(".zip"):
                _search_zip(here / entry, (*parts, entry), staging, findings)


def _search_zip(
    path: Path, parts: tuple[str, ...], staging: Path, findings: Findings, depth: int = 1
) -> None:
    with open_archive(path) as archive:
        for position, member in enumerate(archive.infolist()):
            inner = safe_parts(path, member.filename)
            if member.is_dir() or not inner or any(map(_is_hidden, inner)):
                continue
            if inner[-1].lower().endswith(".zip"):
                if depth == DEEPEST_ZIP_IN_ZIP:
                    raise BoneageError(f"{path}: zips within zips within zips; unpack it yourself")
                unpacked = staging / f"{path.stem}-{position}.zip"
                extract_member(archive, member, unpacked)
                _search_zip(unpacked, (*parts, *inner), staging, findings, depth + 1)
            else:
                _sort_in(
                    SourceFile((*parts, *inner), path, position, size=member.file_size), findings
                )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _sort_in(file: SourceFile, findings: Findings) -> bool:
    """Puts a file where it belongs; False where it is of no use."""
    name = file.parts[-1].lower()
    if name.endswith(TABLE_SUFFIXES):
        findings.tables.append(file)
    elif name.endswith(IMAGE_SUFFIXES):
        # The given path's own name says nothing: whoever names a folder of copies means it.
        for folder in file.parts[1:-1]:
            if folder.lower() in PREPARED_FOLDERS or folder.lower().endswith(PREPARED_ENDING):
                findings.prepared[folder] += 1
                return True
        findings.images.append(file)
    else:
        return False
    return True


def arrange(findings: Findings) -> Arrangement:
    """Matches radiographs to labels and both to splits.

    Args:
        findings: From ``find_files``.

    Returns:
        The radiographs with their labels and splits. Training and validation radiographs without a
        bone age are left out and listed; test radiographs without one stay.

    Raises:
        BoneageError: There are no radiographs, no labels, nothing matches, or labels contradict one
            another.
    """
    notes: list[str] = []
    warnings: list[str] = []
    if not findings.images:
        raise BoneageError(f"no radiographs found ({', '.join(IMAGE_SUFFIXES)}); check the paths")
    if findings.prepared:
        folders = ", ".join(f"{name} ({count:,})" for name, count in findings.prepared.items())
        notes.append(f"Left alone: copies prepared by other tools in {folders}.")
    labels, sizes, used_tables = _read_tables(findings.tables, notes)
    rows = _match(_one_file_per_split(findings.images, warnings), labels, warnings)
    _decide_splits(rows, notes)

    unmatched = []
    kept = []
    for row in rows:
        label: _Label | None = row["label"]
        row["id"] = label.id if label else row["key"]
        row["boneage"] = label.boneage if label else None
        row["male"] = label.male if label else None
        row["patient"] = label.patient if label else None
        row["width"], row["height"] = sizes.get(row["key"], (None, None))
        if row["boneage"] is None and row["split"] != "test":
            unmatched.append((row["id"], "image without a bone age", str(row["file"])))
        else:
            kept.append(row)
    for label in (label for several in labels.values() for label in several):
        if not label.used:
            unmatched.append((label.id, "label without an image", label.source))
    problems = Counter(problem for _, problem, _ in unmatched)
    for problem, count in problems.items():
        examples = ", ".join([name for name, what, _ in unmatched if what == problem][:3])
        warnings.append(f"{count:,} × {problem}, left out (such as {examples}).")
    if not any(row["label"] for row in rows):
        raise BoneageError(
            f"no radiograph matches a label: the images are named like {rows[0]['key']!r}, the ids "
            f"read like {next(iter(labels))!r}; make them agree"
        )
    if not kept:
        raise BoneageError("no radiograph has a bone age; give the table with the labels too")

    table = pd.DataFrame(kept).drop(columns=["key", "label", "folder_split"])
    table["boneage"] = table["boneage"].astype(float)
    table["male"] = table["male"].astype("boolean")
    for column in ("patient", "width", "height"):
        if table[column].isna().all():
            table = table.drop(columns=column)
    table = table.sort_values(["split", "id"], key=_natural_order, ignore_index=True)
    return Arrangement(
        table,
        pd.DataFrame(unmatched, columns=["id", "problem", "source"]),
        used_tables,
        notes,
        warnings,
    )


def _read_tables(
    tables: Iterable[SourceFile], notes: list[str]
) -> tuple[dict[str, list[_Label]], dict[str, tuple[float, float]], list[tuple[SourceFile, bytes]]]:
    labels: dict[str, list[_Label]] = defaultdict(list)
    sizes: dict[str, tuple[float, float]] = {}
    used = []
    refused: list[UnknownHeadings] = []
    for file in tables:
        content = file.read()
        try:
            frame = read_table(str(file), content)
        except UnknownHeadings as error:
            if file.given:
                raise
            refused.append(error)
            notes.append(f"Left alone: {file}, neither labels nor image sizes by its headings.")
            continue
        used.append((file, content))
        records: list[dict[str, Any]] = (
            frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[assignment]
        )
        for row in records:
            if row.get("width") is not None and row.get("height") is not None:
                sizes[row["image"]] = (row["width"], row["height"])
            if "boneage" in row or "male" in row:
                _add_label(labels[row["image"]], row, file)
    if not labels:
        if refused:
            raise refused[0]
        raise BoneageError(
            f"no table of labels found ({', '.join(TABLE_SUFFIXES)}); give it beside the images"
        )
    return dict(labels), sizes, used


def _add_label(known: list[_Label], row: dict[str, Any], file: SourceFile) -> None:
    label = _Label(
        id=row["id"],
        boneage=row.get("boneage"),
        male=row.get("male"),
        patient=row.get("patient"),
        chosen_split=row.get("split"),
        named_split=file.table_split,
        source=str(file),
    )
    for other in known:
        theirs = other.chosen_split or other.named_split
        ours = label.chosen_split or label.named_split
        if theirs == ours or theirs is None or ours is None:
            _merge(other, label)
            return
    known.append(label)


def _merge(label: _Label, other: _Label) -> None:
    """Adds what another table says of the same radiograph."""
    for name, meaning in (
        ("id", "id"),
        ("boneage", "bone age"),
        ("male", "sex"),
        ("patient", "patient"),
        ("chosen_split", "split"),
        ("named_split", "split"),
    ):
        ours, theirs = getattr(label, name), getattr(other, name)
        if ours is None:
            setattr(label, name, theirs)
        elif theirs is not None and ours != theirs:
            where = (
                f"{label.source}: lists {label.id} twice"
                if label.source == other.source
                else f"{label.source} and {other.source} differ on {label.id}"
            )
            raise BoneageError(
                f"{where}: {meaning} {_shown(name, ours)} and {_shown(name, theirs)}; "
                "keep the right one, or leave one table out"
            )


def _shown(name: str, value: Any) -> str:
    if name == "male":
        return "male" if value else "female"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _one_file_per_split(images: list[SourceFile], warnings: list[str]) -> list[dict[str, Any]]:
    """Keeps the first of several files of one id, but one for each split that folders name."""
    by_key: dict[str, dict[str | None, SourceFile]] = defaultdict(dict)
    passed_over: list[tuple[SourceFile, SourceFile]] = []
    for image in images:
        files = by_key[image_stem(image.parts[-1])]
        split = image.folder_split
        if split in files:
            passed_over.append((files[split], image))
        else:
            files[split] = image
    rows = []
    for key, files in by_key.items():
        named = {split: file for split, file in files.items() if split}
        if named and None in files:
            passed_over.append((next(iter(named.values())), files[None]))
        rows += [
            {"key": key, "folder_split": split, "file": file}
            for split, file in (named or files).items()
        ]
    if passed_over:
        kept, left = passed_over[0]
        warnings.append(
            f"{len(passed_over):,} radiographs are there twice; the first was kept (such as "
            f"{kept}, not {left})."
        )
    both = [key for key, files in by_key.items() if len([split for split in files if split]) > 1]
    if both:
        warnings.append(
            f"{len(both):,} ids lie in the folders of several splits (such as {both[0]}); all were "
            "kept, and 'boneage check-data' will report them."
        )
    return rows


def _match(
    rows: list[dict[str, Any]], labels: dict[str, list[_Label]], warnings: list[str]
) -> list[dict[str, Any]]:
    for row in rows:
        candidates = labels.get(row["key"], [])
        same = [
            label
            for label in candidates
            if row["folder_split"] in (label.chosen_split or label.named_split, None)
        ]
        if len(same) > 1 or (not same and len(candidates) > 1):
            first, second = candidates[:2]
            raise BoneageError(
                f"{row['key']}: listed in {first.source} and in {second.source}, which are "
                "different splits; leave one table out"
            )
        row["label"] = next(iter(same or candidates), None)
        if row["label"]:
            row["label"].used = True
    return rows


def _decide_splits(rows: list[dict[str, Any]], notes: list[str]) -> None:
    folders = {row["folder_split"] for row in rows} - {None}
    tables = {row["label"].named_split for row in rows if row["label"]} - {None}
    is_rsna = _has_rsna_test_ids(rows)
    guessed = 0
    for row in rows:
        label: _Label | None = row["label"]
        by_folder = row["folder_split"]
        by_table = label.named_split if label else None
        if label and label.chosen_split:
            row["split"] = label.chosen_split
        elif by_folder and by_table and by_folder != by_table:
            # A training folder may hold what tables divide, and a training table what folders do.
            if len(tables) == len(folders):
                raise BoneageError(
                    f"{row['file']}: the folder says {by_folder}, "
                    f"{label.source if label else ''} says {by_table}; rename one of them"
                )
            row["split"] = by_table if len(tables) > len(folders) else by_folder
        elif by_folder or by_table:
            row["split"] = by_folder or by_table
        elif is_rsna and _is_rsna_test(row["key"]):
            row["split"] = "test"
        else:
            row["split"] = "train"
            guessed += 1
    if guessed:
        notes.append(f"No name told the split of {guessed:,} radiographs; they count as train.")


def _is_rsna_test(key: str) -> bool:
    return key.isdecimal() and int(key) in RSNA_TEST_IDS


def _has_rsna_test_ids(rows: list[dict[str, Any]]) -> bool:
    """Tells RSNA's test set, 100 boys then 100 girls, from the same numbers elsewhere."""
    sexes = [
        (int(row["key"]) < RSNA_TEST_IDS[100], row["label"].male)
        for row in rows
        if _is_rsna_test(row["key"]) and row["label"] and row["label"].male is not None
    ]
    return bool(sexes) and all(expected == male for expected, male in sexes)


def _natural_order(column: pd.Series) -> pd.Series:
    if column.name == "split":
        return column.map(SPLITS.index)
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column
