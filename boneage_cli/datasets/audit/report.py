"""Writes an audit as one self-contained HTML page and as a table of findings."""

from __future__ import annotations

import base64
import csv
from datetime import date
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from boneage_cli import __version__
from boneage_cli.datasets.audit.audit import Audit
from boneage_cli.datasets.audit.pictures import CLIP_LIMIT, TILES, flagged_pictures, sample_pictures
from boneage_cli.datasets.audit.plots import audit_plots
from boneage_cli.datasets.audit.tables import audit_tables
from boneage_cli.files import explaining_write_errors, whole_file

_PAGE_FILE = "index.html"
_FINDINGS_FILE = "findings.csv"
_FINDING_COLUMNS = ("severity", "kind", "split", "id", "path", "row", "message", "remedy")

# Most findings of a kind that the page lists; the CSV file has all of them.
_LISTED = 100


def write_report(audit: Audit, folder: Path) -> Path:
    """Writes ``index.html`` and ``findings.csv``.

    The page contains the findings, the tables and plots of each split, and radiographs before and
    after CLAHE; styles, plots and images are embedded. It may show patients' radiographs, so the
    data set's terms apply to it.

    Args:
        audit: The audit.
        folder: Folder of the two files; created if missing.

    Returns:
        Path of the page.

    Raises:
        BoneageError: The folder cannot be written.
    """
    page = _page(audit)
    with explaining_write_errors(folder, "--report"):
        with whole_file(folder / _PAGE_FILE) as temporary:
            # Names of files need not be UTF-8, but a page must be.
            temporary.write_text(page, encoding="utf-8", errors="replace")
        _write_findings(audit, folder / _FINDINGS_FILE)
    return folder / _PAGE_FILE


def _page(audit: Audit) -> str:
    environment = Environment(
        loader=PackageLoader("boneage_cli.datasets.audit"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["image"] = _data_address
    return environment.get_template("audit.html").render(
        audit=audit,
        kinds=[
            (kind, findings, flagged_pictures(audit, kind))
            for kind, findings in audit.by_kind().items()
        ],
        listed=_LISTED,
        tables=audit_tables(audit),
        plots=audit_plots(audit),
        samples=sample_pictures(audit),
        clip_limit=CLIP_LIMIT,
        tiles=TILES,
        findings_file=_FINDINGS_FILE,
        date=date.today().isoformat(),
        version=__version__,
    )


def _write_findings(audit: Audit, path: Path) -> None:
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as handle,
    ):
        writer = csv.writer(handle)
        writer.writerow(_FINDING_COLUMNS)
        for finding in audit.findings:
            writer.writerow(getattr(finding, column) for column in _FINDING_COLUMNS)


def _data_address(content: str | bytes) -> str:
    """Encodes an SVG text or a JPEG file as a data URL for an image element."""
    kind, raw = (
        ("jpeg", content) if isinstance(content, bytes) else ("svg+xml", content.encode("utf-8"))
    )
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode('ascii')}"
