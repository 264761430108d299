"""``boneage check-data``: checks the labels and images of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import console, print_table
from boneage_cli.cli.options import DataOption, Split, ThreadsOption

if TYPE_CHECKING:
    from boneage_cli.datasets.audit.audit import Audit
    from boneage_cli.datasets.audit.findings import Finding

EXAMPLES = 3
_MARKS = {"error": "[red]✘[/red]", "warning": "[yellow]![/yellow]", "note": "[blue]i[/blue]"}


def check_data(
    data: DataOption = None,
    split: Annotated[
        Split | None,
        typer.Option(
            "--split",
            help="Check only this split; its ids and patients are still compared with those of "
            "the other splits. Default: all.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            file_okay=False,
            help="Write a report to this folder: index.html, with plots and sample radiographs, "
            "and findings.csv.",
            show_default=False,
        ),
    ] = None,
    workers: ThreadsOption = None,
) -> None:
    """Check the labels and every image of a data set.

    [bold]Examples[/bold]

    \b
      boneage check-data
      boneage check-data --data demo
      boneage check-data --data data/rsna --split test
      boneage check-data --report check        (then open check/index.html)

    [bold]Errors[/bold] must be fixed before training

    Images that are missing, unreadable, truncated or blank. Bone ages that are
    missing, NaN, infinite, not above 0 or above 240 months. An unreadable sex.
    One id with two labels. The same id, patient or pixels in two splits. Test
    labels of a version other than that named in SOURCE.json.

    [bold]Warnings[/bold] should be reviewed

    The same pixels or id twice in a split, images without a row in a table, a
    missing sex, few boys or few girls, very dark or low-contrast images, a
    background brighter than the hand (inverted, or framed), images smaller
    than 64 pixels, narrow strips.

    [bold]Output[/bold]

    Tables of labels, bone ages, intensities and image sizes; for each kind of
    finding how often it occurs, what to do, and the first three rows; and a
    summary line. The report is a single page that works offline, with all
    findings, plots, and radiographs before and after CLAHE.

    [bold]Exit status[/bold]: 0 if there are no errors, 1 if there are, 2 if
    there is no data set to check.
    """
    from boneage_cli.datasets.audit.audit import audit
    from boneage_cli.datasets.audit.tables import audit_tables
    from boneage_cli.datasets.find_dataset import find_dataset
    from boneage_cli.files import check_writable

    if report is not None:
        check_writable(report, "--report")
    result = audit(find_dataset(data), split.value if split else None, workers)
    for table in audit_tables(result):
        print_table(*table)
    for kind, findings in result.by_kind().items():
        _print_findings(kind, findings, result)
    console.print(f"{result.folder}: {result.summary()}", markup=False)
    if report is not None:
        from boneage_cli.datasets.audit.report import write_report

        console.print(f"Report: {write_report(result, report)}", markup=False)
    if not result.passed:
        raise typer.Exit(EXIT_FINDINGS)


def _print_findings(kind: str, findings: list[Finding], result: Audit) -> None:
    first = findings[0]
    console.print(
        f"{_MARKS[first.severity]} [bold]{kind}[/bold] × {len(findings):,}: {first.remedy}"
    )
    for finding in findings[:EXAMPLES]:
        console.print(f"    {finding.text(result.folder)}", markup=False)
    if len(findings) > EXAMPLES:
        console.print(f"    … and {len(findings) - EXAMPLES:,} more")
