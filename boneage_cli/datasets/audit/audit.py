"""Reads every label and image of a data set and lists its faults, row by row."""

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
    patients_of_both_sexes,
    read_labels,
    repeated_ids,
)
from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.datasets.source import SOURCE_FILE, Source, read_source
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted


@dataclass
class Audit:
    """Result of an audit: the rows of a data set and its findings.

    Attributes:
        folder: The data set's folder.
        rows: The rows of the examined splits, with the statistics of their images.
        findings: The findings, most severe first.
        source: The contents of SOURCE.json; None if it is missing or unreadable.
    """

    folder: Path
    rows: list[LabelledImage]
    findings: list[Finding] = field(default_factory=list)
    source: Source | None = None

    @property
    def passed(self) -> bool:
        """Whether there are no errors."""
        return not self.count(ERROR)

    def by_split(self) -> dict[str, list[LabelledImage]]:
        """Returns the rows of each split that has any, in the order of ``SPLITS``."""
        grouped = {split: [row for row in self.rows if row.split == split] for split in SPLITS}
        return {split: rows for split, rows in grouped.items() if rows}

    def by_kind(self) -> dict[str, list[Finding]]:
        """Returns the findings of each kind that occurs, most severe kinds first."""
        grouped: dict[str, list[Finding]] = {}
        for finding in self.findings:
            grouped.setdefault(finding.kind, []).append(finding)
        return grouped

    def count(self, severity: str) -> int:
        """Returns the number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def summary(self) -> str:
        """Returns one line with the numbers of rows, images and findings, and the verdict."""
        read = sum(row.statistics is not None for row in self.rows)
        counts = ", ".join(counted(self.count(severity), severity) for severity in SEVERITIES)
        verdict = "passed" if self.passed else "failed, fix the errors and check again"
        return (
            f"{counted(len(self.rows), 'row')}, {counted(read, 'image')} read, {counts}: {verdict}"
        )


def audit(folder: Path, split: str | None = None, workers: int | None = None) -> Audit:
    """Checks the labels and every image of a data set.

    Memory use stays low: only a few numbers are kept per image, never its pixels.

    Args:
        folder: The data set's folder, as described in ``datasets.manifest``.
        split: The only split to check; None for all. Ids and patients of the other splits are
            still compared with it, but their images are not read.
        workers: Number of threads; None for one per core.

    Returns:
        The rows with the statistics of their images, and the findings.

    Raises:
        BoneageError: The folder has no label file, or it is not a CSV with the required columns.
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

    # Of two conflicting rows the later one is reported, so the examined splits come last.
    everything.sort(key=lambda row: row.split in examined)
    findings += [
        finding
        for check in (repeated_ids, divided_patients, patients_of_both_sexes)
        for finding in check(everything)
        if finding.split in examined
    ]
    findings += check_label_version(rows, source)
    findings += measure_images(rows, workers)
    findings += repeated_pixels(rows)
    for row in rows:
        if row.statistics:
            findings += image_findings(row, row.statistics)
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
