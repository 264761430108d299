"""Reads every label and every image of a data set and lists what is wrong with it, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from boneage_cli.datasets.audit.findings import ERROR, KINDS, SEVERITIES, Finding
from boneage_cli.datasets.audit.images import (
    image_findings,
    measure_images,
    repeated_pixels,
    unnamed_files,
)
from boneage_cli.datasets.audit.labels import (
    LabelledImage,
    check_label_version,
    distributions,
    divided_patients,
    read_labels,
    repeated_ids,
)
from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.datasets.source import SOURCE_FILE, Source, read_source
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted


@dataclass
class Audit:
    """What a data set holds and what is wrong with it.

    Attributes:
        folder: The data set's folder.
        rows: The rows of the splits examined, with the statistics of their images.
        findings: What was found, gravest first.
        source: What SOURCE.json says; None without a readable one.
    """

    folder: Path
    rows: list[LabelledImage]
    findings: list[Finding] = field(default_factory=list)
    source: Source | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing must be fixed."""
        return not self.count(ERROR)

    def by_split(self) -> dict[str, list[LabelledImage]]:
        """The rows of each split that has any, in the splits' usual order."""
        grouped = {split: [row for row in self.rows if row.split == split] for split in SPLITS}
        return {split: rows for split, rows in grouped.items() if rows}

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind that occurs, gravest kinds first."""
        grouped: dict[str, list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault(finding.kind, []).append(finding)
        return grouped

    def count(self, severity: str) -> int:
        """The number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def summary(self) -> str:
        """One line: how much was read, what was found, and whether something must be fixed."""
        read = sum(row.statistics is not None for row in self.rows)
        counts = ", ".join(counted(self.count(severity), severity) for severity in SEVERITIES)
        verdict = "passed" if self.passed else "failed, fix the errors and check again"
        return (
            f"{counted(len(self.rows), 'row')}, {counted(read, 'image')} read, {counts}: {verdict}"
        )


def audit(folder: Path, split: str | None = None, workers: int | None = None) -> Audit:
    """Checks the labels and every image of a data set.

    Memory stays flat: of each image a few numbers are kept, never its pixels.

    Args:
        folder: The data set's folder, as described in ``datasets.manifest``.
        split: The only split to check; None for all that are there. Ids and patients of the other
            splits are still compared with it, their images are not read.
        workers: Images read at a time; None for the number of processors.

    Returns:
        The rows with the statistics of their images, and the findings.

    Raises:
        BoneageError: The folder holds no label file, or one that is no CSV with the right columns.
    """
    folder = Path(folder)
    present = [name for name in SPLITS if (folder / f"{name}.csv").is_file()]
    if not present or split not in (None, *present):
        wanted = split or "train"
        raise BoneageError(f"{folder}: no {wanted}.csv here; make a data set with 'boneage fetch'")
    examined = present if split is None else [split]

    everything: list[LabelledImage] = []
    source, findings = _read_source(folder)
    for name in present:
        labels, wrong = read_labels(folder, name)
        everything += labels
        findings += wrong if name in examined else []
    rows = [row for row in everything if row.split in examined]

    # Of two rows that clash the later one is named, so the splits examined come last.
    everything.sort(key=lambda row: row.split in examined)
    findings += [
        finding
        for finding in (*repeated_ids(everything), *divided_patients(everything))
        if finding.split in examined
    ]
    findings += check_label_version(rows, source)
    findings += measure_images(rows, workers)
    findings += repeated_pixels(rows)
    for row in rows:
        findings += image_findings(row)
    for name in examined:
        findings += distributions(rows, name)
        findings += unnamed_files(folder, name, everything)

    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Audit(folder=folder, rows=rows, findings=findings, source=source)


def _read_source(folder: Path) -> tuple[Source | None, list[Finding]]:
    path = str(folder / SOURCE_FILE)
    try:
        source = read_source(folder)
    except BoneageError as error:
        return None, [Finding("source-unreadable", str(error), path=path)]
    if source is None:
        return None, [Finding("no-source", f"no {SOURCE_FILE}", path=path)]
    if not source.complete:
        return source, [Finding("incomplete", "'boneage fetch' was interrupted", path=path)]
    return source, []
