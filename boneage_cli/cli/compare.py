"""``boneage compare``: paired differences between models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import print_fields
from boneage_cli.cli.model_table import print_model_table
from boneage_cli.cli.options import split_paths
from boneage_cli.wording import counted

if TYPE_CHECKING:
    from boneage_cli.core.evaluation.comparison import Compared, Comparison
    from boneage_cli.core.evaluation.metrics import Estimate


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, the folder of a sweep for all of its runs, folders that evaluate "
            "wrote, or their predictions.csv; with commas between them, several trainings of one "
            "model.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="A CSV file to write the figures to."),
    ] = None,
) -> None:
    """Compare models on the same radiographs, with intervals of the differences.

    [bold]Examples[/bold]

    \b
      boneage compare runs/a runs/b
      boneage compare runs/*
      boneage compare runs/sweep-quick-family-clahe
      boneage compare runs/a/evaluation-test runs/b/evaluation-test -o ab.csv
      boneage compare runs/a-1,runs/a-2,runs/a-3 runs/b-1,runs/b-2,runs/b-3

    [bold]What it prints[/bold]

    For each model the mean absolute error (MAE), with its 95 % bootstrap interval
    over radiographs, and the paired difference from the first model: above zero
    the model is worse. If the interval of a difference includes zero, these
    radiographs show no difference. The second table has the differences by sex
    and by band of known age (0–5 means below 5 years).

    A run folder stands for its validation split, a cross-validation for its
    out-of-fold predictions, and the folder of a sweep for each of its runs, in
    the order in which they were trained. Only radiographs that all models have
    predicted count.

    Two trainings of one recipe differ, too, by the seed alone (training.seed).
    Name several trainings of each model, with commas between them: their errors
    are averaged, and the standard deviation of the MAE over them is printed.
    Intervals are over radiographs; a difference within that standard deviation
    may be chance.

    Of models that predict sex it is the share of wrong ones, in per cent.

    [bold]Exit status[/bold]: 0, or 2 when there is nothing to compare.
    """
    from boneage_cli.core.evaluation.comparison import compare as compare_models
    from boneage_cli.core.evaluation.comparison import write_comparison

    comparison = compare_models([split_paths([each]) for each in models])
    # Written first: a reader such as head may close the output before it is complete.
    try:
        if output is not None:
            write_comparison(comparison, output)
    finally:
        _print_comparison(comparison)
    if output is not None:
        print_fields({"written": output})


def _print_comparison(comparison: Comparison) -> None:
    unit, scale = ("MAE, months", 1) if comparison.of_ages else ("wrong sexes, %", 100)
    several = any(len(model.paths) > 1 for model in comparison.models)
    folders = {path.parent for model in comparison.models for path in model.paths}
    # Where all are in one folder, it is named once.
    shared = len(folders) == 1 and folders != {Path()}
    names = [
        ", ".join(path.name if shared else str(path) for path in model.paths)
        for model in comparison.models
    ]
    where = f" of {folders.pop()}" if shared else ""
    images = counted(comparison.models[0].images, "radiograph")
    print_model_table(
        f"Models{where} on the same {images}",
        ("model", f"{unit} (95 %)", *(["SD"] if several else []), "against the first (95 %)"),
        [
            (
                name,
                model.error.text_of(model.images, scale),
                *([_spread(model, scale)] if several else []),
                _difference(model.against_first, model.images, scale),
            )
            for name, model in zip(names, comparison.models, strict=True)
        ],
    )
    print_model_table(
        f"Against {names[0]}, by group",
        ("model", "group", "images", "against the first (95 %)"),
        [
            # The model's name is in the first of its rows only.
            (name if row == 0 else "", group, images, _difference(difference, images, scale))
            for name, model in zip(names[1:], comparison.models[1:], strict=True)
            for row, (group, (images, difference)) in enumerate(model.groups.items())
        ],
    )


def _difference(found: Estimate | None, images: int, scale: float) -> str:
    return found.text_of(images, scale, "+") if found else ""


def _spread(model: Compared, scale: float) -> str:
    return "" if model.spread is None else f"{scale * model.spread:.2f}"
