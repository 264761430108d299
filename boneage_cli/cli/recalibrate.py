"""``boneage recalibrate``: fits a model's ages to a site's own readings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import console, print_fields, print_table, warn
from boneage_cli.cli.options import DeviceOption
from boneage_cli.wording import counted


def recalibrate(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="CSV",
            dir_okay=False,
            help="Table of the site's radiographs: path or id, sex, and boneage in months.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="BUNDLE",
            help="The model to recalibrate; for a cross-validation, the mean of its models. "
            "Default: the model that comes with the package.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The new bundle.")
    ] = Path("recalibrated.safetensors"),
    device: DeviceOption = "auto",
) -> None:
    """Fit a model's ages to a site, from a small table of known bone ages.

    For each sex, a straight line from predicted to known age is fitted and stored
    in a new bundle, which predict and evaluate use like any other. A sex with
    fewer than 20 radiographs is not corrected; with fewer than 40 of a corrected
    sex, the new bundle has no prediction intervals. Errors before and after are
    estimated by ten-fold cross-validation; unless the improvement is significant
    (its 95 % interval lies above 0), nothing is written.

    [bold]Examples[/bold]

    \b
      boneage recalibrate clinic.csv --model best.safetensors
      boneage recalibrate clinic.csv -m runs/a -o clinic.safetensors
      boneage predict hand.png --sex F --model clinic.safetensors

    A model that also predicts sex is refused, since the correction needs the
    known sex.

    [bold]Exit status[/bold]: 0 if a bundle was written, 1 if the correction does
    not help, 2 if the table or the model is invalid.
    """
    from boneage_cli.core.evaluation.recalibration import FEWEST
    from boneage_cli.core.evaluation.recalibration import recalibrate as fit
    from boneage_cli.core.intervals import LEAST_TO_CALIBRATE
    from boneage_cli.core.runs import SHIPPED_MODEL

    result = fit(model or SHIPPED_MODEL, table, output, device=device)
    for reason in result.skipped:
        warn(f"left out: {reason}")
    rows = [("MAE before (95 %)", str(result.before))]
    if result.correction:
        rows += [
            ("MAE after, cross-validated", str(result.after)),
            ("decrease in MAE by the correction (95 %)", str(result.gain)),
        ]
    for sex, (count, gain) in sorted(result.by_sex.items()):
        name = "girls" if sex == "F" else "boys"
        rows.append((f"{name}: readings", str(count)))
        decrease = f"not tried: {FEWEST} readings are needed" if gain is None else str(gain)
        rows.append((f"{name}: decrease in MAE (95 %)", decrease))
        if sex in result.correction:
            offset, slope = result.correction[sex]
            rows.append((f"{name}: known age", f"{offset:+.2f} + {slope:.3f} × predicted"))
    print_table(f"{counted(result.images, 'radiograph')}, months", ("", ""), rows)
    if result.written is None:
        console.print(
            "not written: a correction decreases the MAE of neither sex beyond chance (its "
            "interval includes zero or less)"
        )
        raise typer.Exit(EXIT_FINDINGS)
    if result.lost_intervals:
        warn(
            "the new model gives no prediction intervals: they need "
            f"{LEAST_TO_CALIBRATE} readings for each corrected sex"
        )
    print_fields({"written": result.written})
