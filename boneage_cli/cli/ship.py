"""``boneage ship``, which is not listed among the commands, because it changes the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.console import console


def ship(
    run: Annotated[
        Path | None,
        typer.Argument(help="A finished run; none to convert the model that is there alone."),
    ] = None,
    data_name: Annotated[
        str | None,
        typer.Option(
            "--data-name", help="What the card calls the data. Default: what the run calls it."
        ),
    ] = None,
    blend: Annotated[
        float,
        typer.Option(
            "--blend",
            min=0,
            max=1,
            help="How much of the weights is the run's; the rest is that of the last stage before.",
        ),
    ] = 1.0,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--beside",
            metavar="BUNDLE",
            help="Another model, whose ages are averaged with the run's.",
        ),
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            "--measure",
            metavar="DATA",
            help="Only recompute the figures of the model that is there, on this data set's "
            "held-out radiographs: after a change of the code, or on a CPU with bf16.",
        ),
    ] = None,
) -> None:
    """Make the package's model and its card from a finished run.

    For those who work on boneage itself, in a checkout. The model's figures are
    recomputed on the validation split of the run's data set, and it and the
    key-point network are converted for OpenVINO.

    [bold]Examples[/bold]

    \b
      boneage ship runs/20260101-140000-rsna --blend 0.5 --data-name 'RSNA, 299'
      boneage ship runs/20260101-140000-rsna --beside other.safetensors
      boneage ship --measure data/rsna299
      boneage ship
    """
    from boneage_cli.core.release.shipping import convert, measure_again
    from boneage_cli.core.release.shipping import ship as make

    if run is not None:
        make(run, data_name=data_name, blend=blend, beside=beside)
    if measure is not None:
        measure_again(measure)
    if run is not None or measure is not None:
        _tell_of_mixed_precision()
    if measure is None:
        convert()


def _tell_of_mixed_precision() -> None:
    from boneage_cli.core.bundle import load_bundle
    from boneage_cli.core.mixed_precision import MIXED_PRECISION
    from boneage_cli.core.runs import SHIPPED_MODEL

    moved = load_bundle(SHIPPED_MODEL).metrics.get(MIXED_PRECISION)
    if moved is None:
        console.print(
            "mixed precision is not used by default: ages change too much, or the CPU has no bf16"
        )
    else:
        console.print(
            f"mixed precision changes ages by {moved['mean']:.3f} months on average, at most "
            f"{moved['max']:.3f}"
        )
