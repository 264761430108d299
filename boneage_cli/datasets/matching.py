"""Matches radiographs to labels and assigns both to splits.

A radiograph is identified by the stem of its file name, a label by its id. The split comes from a
``split`` column, from the names of tables and folders (``RSNA_val``, ``boneage-test-dataset``), or
for RSNA's test set from its ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from boneage_cli.datasets.dialects import UnknownHeadings, read_table
from boneage_cli.datasets.label_version import RSNA_TEST_IDS
from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.datasets.names import image_stem
from boneage_cli.datasets.source_files import FoundFiles, SourceFile
from boneage_cli.datasets.tables import TABLE_SUFFIXES
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.suffixes import IMAGE_SUFFIXES
from boneage_cli.wording import counted


@dataclass
class Arrangement:
    """Radiographs matched to labels and splits.

    Attributes:
        table: One row per radiograph: ``id``, ``split``, ``boneage``, ``male``, ``file`` (a
            ``SourceFile``) and, where known, ``patient``, ``width``, ``height``.
        unmatched: ``id``, ``problem`` and ``source`` of unmatched radiographs and labels.
        tables: The tables that were used, with their contents.
        notes: Messages for the user.
        warnings: Problems that the user should check.
    """

    table: pd.DataFrame
    unmatched: pd.DataFrame
    tables: list[tuple[SourceFile, bytes]]
    notes: list[str]
    warnings: list[str]


@dataclass
class _Label:
    """The label of one radiograph, merged from all tables."""

    id: str
    boneage: float | None
    male: bool | None
    patient: str | None
    chosen_split: str | None
    named_split: str | None
    source: str
    folders: tuple[str, ...] = ()
    used: bool = False


@dataclass
class _Row:
    """A radiograph with its label and split, as far as they are decided."""

    key: str
    file: SourceFile
    folder_split: str | None
    label: _Label | None = None
    split: str = "train"

    @property
    def id(self) -> str:
        return self.label.id if self.label else self.key

    @property
    def is_usable(self) -> bool:
        """Whether it can be trained, validated or tested on; a test needs no bone age."""
        return self.split == "test" or (self.label is not None and self.label.boneage is not None)


def arrange(found: FoundFiles) -> Arrangement:
    """Matches radiographs to labels and both to splits.

    Args:
        found: The result of ``find_files``.

    Returns:
        The radiographs with their labels and splits. Training and validation radiographs without a
        bone age are left out and listed; test radiographs without one stay.

    Raises:
        BoneageError: There are no radiographs or no labels, nothing matches, or labels contradict
            each other.
    """
    notes: list[str] = []
    warnings: list[str] = []
    if not found.images:
        raise BoneageError(f"no radiographs found ({', '.join(IMAGE_SUFFIXES)}); check the paths")
    if found.prepared:
        folders = ", ".join(f"{name} ({count:,})" for name, count in found.prepared.items())
        notes.append(f"Left alone: copies prepared by other tools in {folders}.")
    labels, sizes, used_tables = _read_tables(found.tables, notes)
    rows = _one_file_per_split(_named_first(found.images, labels), warnings)
    _match(rows, labels)
    if not any(row.label for row in rows):
        raise BoneageError(
            f"no radiograph matches a label: the images are named like {rows[0].key!r}, the ids "
            f"read like {next(iter(labels))!r}; make them agree"
        )
    _decide_splits(rows, notes)
    kept = [row for row in rows if row.is_usable]
    if not kept:
        raise BoneageError(
            "no radiograph has a bone age; give the table with the labels too, where a column "
            "boneage has them in months"
        )
    _check_ids(kept)
    unmatched = _unmatched(rows, labels)
    for problem, names in unmatched.groupby("problem", sort=False)["id"]:
        examples = ", ".join(names.head(3))
        warnings.append(f"{len(names):,} × {problem}, left out (such as {examples}).")
    return Arrangement(_table(kept, sizes), unmatched, used_tables, notes, warnings)


def _unmatched(rows: Iterable[_Row], labels: Mapping[str, Sequence[_Label]]) -> pd.DataFrame:
    images = [
        (row.id, "image without a bone age", str(row.file)) for row in rows if not row.is_usable
    ]
    unused = [
        (label.id, "label without an image", label.source)
        for several in labels.values()
        for label in several
        if not label.used
    ]
    return pd.DataFrame([*images, *unused], columns=["id", "problem", "source"])


def _table(rows: Sequence[_Row], sizes: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Returns the table of an ``Arrangement``."""
    labels = [row.label for row in rows]
    original = [sizes.get(row.key, (None, None)) for row in rows]
    table = pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "split": [row.split for row in rows],
            "boneage": pd.Series([label and label.boneage for label in labels], dtype="float"),
            "male": pd.Series([label and label.male for label in labels], dtype="boolean"),
            "file": [row.file for row in rows],
            "patient": [label and label.patient for label in labels],
            "width": [width for width, _ in original],
            "height": [height for _, height in original],
        }
    )
    for column in ("patient", "width", "height"):
        if table[column].isna().all():
            table = table.drop(columns=column)
    return table.sort_values(["split", "id"], key=_natural_order, ignore_index=True)


def _check_ids(rows: Iterable[_Row]) -> None:
    """Refuses two radiographs of one split with the same id, whose files would have one name."""
    first: dict[tuple[str, str], SourceFile] = {}
    for row in rows:
        other = first.setdefault((row.split, row.id), row.file)
        if other is not row.file:
            raise BoneageError(
                f"{row.id}: the id of two radiographs, {other} and {row.file}; give each one "
                "of its own, and call the column patient_id if it names children"
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
        folders=PurePosixPath(row.get("folder") or "").parts,
    )
    for other in known:
        theirs = other.chosen_split or other.named_split
        ours = label.chosen_split or label.named_split
        if theirs == ours or theirs is None or ours is None:
            _merge(other, label)
            return
    known.append(label)


def _merge(label: _Label, other: _Label) -> None:
    """Merges another table's label of the same radiograph."""
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
                "keep the right one, or leave one table out; rename files that share a name"
            )


def _shown(name: str, value: Any) -> str:
    if name == "male":
        return "male" if value else "female"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _named_first(
    images: Iterable[SourceFile], labels: Mapping[str, Sequence[_Label]]
) -> list[SourceFile]:
    """Sorts files whose folder a table names before others, which may share their names."""

    def agreeing(image: SourceFile) -> int:
        """Returns the number of folders, from the innermost, that agree with the table's."""
        most = 0
        for label in labels.get(image_stem(image.parts[-1]), ()):
            pairs = zip(reversed(image.parts[:-1]), reversed(label.folders), strict=False)
            most = max(most, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
        return most

    return sorted(images, key=agreeing, reverse=True)


def _one_file_per_split(images: list[SourceFile], warnings: list[str]) -> list[_Row]:
    """Keeps the first of several files of one id; one per split if folders name splits."""
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
        rows += [_Row(key, file, split) for split, file in (named or files).items()]
    if passed_over:
        kept, left = passed_over[0]
        warnings.append(
            f"Found twice: {len(passed_over):,} radiographs; the first was kept (such as {kept}, "
            f"not {left})."
        )
    both = [key for key, files in by_key.items() if len([split for split in files if split]) > 1]
    if both:
        warnings.append(
            f"In the folders of several splits: {len(both):,} ids (such as {both[0]}); all were "
            "kept, and 'boneage check-data' will report them."
        )
    return rows


def _match(rows: Iterable[_Row], labels: Mapping[str, Sequence[_Label]]) -> None:
    """Assigns each radiograph the label of its id, and of its split if tables name several."""
    for row in rows:
        candidates = labels.get(row.key, [])
        same = [
            label
            for label in candidates
            if row.folder_split in (label.chosen_split or label.named_split, None)
        ]
        if len(same) > 1 or (not same and len(candidates) > 1):
            first, second = candidates[:2]
            raise BoneageError(
                f"{row.key}: listed in {first.source} and in {second.source}, which are "
                "different splits; leave one table out"
            )
        row.label = next(iter(same or candidates), None)
        if row.label:
            row.label.used = True


def _decide_splits(rows: Sequence[_Row], notes: list[str]) -> None:
    folders = {row.folder_split for row in rows} - {None}
    tables = {row.label.named_split for row in rows if row.label} - {None}
    is_rsna = _has_rsna_test_ids(rows)
    guessed = 0
    for row in rows:
        label = row.label
        by_folder = row.folder_split
        by_table = label.named_split if label else None
        if label and label.chosen_split:
            row.split = label.chosen_split
        elif label and by_folder and by_table and by_folder != by_table:
            # One training folder may be divided by tables, and one training table by folders.
            if len(tables) == len(folders):
                raise BoneageError(
                    f"{row.file}: the folder says {by_folder}, {label.source} says {by_table}; "
                    "rename one of them"
                )
            row.split = by_table if len(tables) > len(folders) else by_folder
        elif named := by_folder or by_table:
            row.split = named
        elif is_rsna and _is_rsna_test(row.key):
            row.split = "test"
        else:
            row.split = "train"
            guessed += 1
    if guessed:
        which = counted(guessed, "radiograph")
        notes.append(f"No name of a file or folder states the split of {which}, taken as train.")


def _is_rsna_test(key: str) -> bool:
    return key.isdecimal() and int(key) in RSNA_TEST_IDS


def _has_rsna_test_ids(rows: Iterable[_Row]) -> bool:
    """Whether ids 4360 to 4559 are RSNA's test set, whose order is 100 boys, then 100 girls.

    One sex in ten may be wrong: otherwise one mistake would move the whole test set into training.
    """
    agree = [
        (int(row.key) < RSNA_TEST_IDS[100]) == row.label.male
        for row in rows
        if _is_rsna_test(row.key) and row.label and row.label.male is not None
    ]
    return bool(agree) and sum(agree) >= 0.9 * len(agree)


def _natural_order(column: pd.Series) -> pd.Series:
    if column.name == "split":
        return column.map(SPLITS.index)
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column
