"""``boneage recalibrate``: a model fitted to a site's own readings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.console import EXIT_FINDINGS, console, print_table, warn
from boneage_cli.cli.options import Device, DeviceOption


def recalibrate(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="CSV",
            dir_okay=False,
            help="The site's radiographs: path or id, sex, and boneage in months.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="BUNDLE",
            help="The model to fit; of a cross-validation the mean of its models. Default: the one "
            "that the package carries.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The new bundle.")
    ] = Path("recalibrated.safetensors"),
    device: DeviceOption = Device.auto,
) -> None:
    """Fit a model's ages to a site, from a small table of known bone ages.

    A straight line per sex is fitted from predicted to known age and stored in a
    new bundle, which predict and evaluate then use like any other. A sex with
    fewer than 20 radiographs keeps its ages; with fewer than 40 of a corrected
    sex the new bundle has no prediction intervals. Errors before and after are
    measured by ten-fold cross-validation; where the gain is not beyond chance,
    nothing is written.

    [bold]Examples[/bold]

    \b
      boneage recalibrate clinic.csv --model best.safetensors
      boneage recalibrate clinic.csv -m runs/a -o clinic.safetensors
      boneage predict hand.png --sex F --model clinic.safetensors

    A model that predicts sex as well is refused: its lines would have to be told
    the sex.

    [bold]Exit status[/bold]: 0 when a bundle was written, 1 when the correction
    does not help, 2 when the table or the model makes no sense.
    """
    from boneage_cli.core.evaluation.recalibration import recalibrate as fit
    from boneage_cli.core.intervals import LEAST
    from boneage_cli.core.prediction.inputs import cases, check_output
    from boneage_cli.core.runs import SHIPPED_MODEL

    check_output(output, [str(table)], text=False)
    result = fit(model or SHIPPED_MODEL, list(cases([str(table)])), output, device=device.value)
    for reason in result.skipped:
        warn(f"left out: {reason}")
    rows = [
        ("MAE before (95 %)", str(result.before)),
        ("MAE after, cross-validated", str(result.after)),
        ("gain", str(result.gain)),
    ]
    for sex, (offset, slope) in result.correction.items():
        name = "girls" if sex == "F" else "boys"
        rows.append((f"{name}: known age", f"{offset:+.2f} + {slope:.3f} × predicted"))
    print_table(f"{result.images} radiographs, months", ("", ""), rows)
    if result.written is None:
        console.print(
            "not written: the gain is not beyond chance (its interval reaches to zero or below)"
        )
        raise typer.Exit(EXIT_FINDINGS)
    if result.lost_intervals:
        warn(
            f"the new model gives no prediction intervals: they need {LEAST} readings of each "
            "corrected sex"
        )
    console.print(f"written   {result.written}", markup=False)
