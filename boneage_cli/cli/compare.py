"""``boneage compare``: paired differences between models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import print_fields, print_table
from boneage_cli.cli.options import split_paths
from boneage_cli.wording import counted

if TYPE_CHECKING:
    from boneage_cli.core.evaluation.comparison import Comparison


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
    _print_comparison(comparison)
    if output is not None:
        write_comparison(comparison, output)
        print_fields({"written": output})


def _print_comparison(comparison: Comparison) -> None:
    unit, scale = ("MAE, months", 1) if comparison.of_ages else ("wrong sexes, %", 100)

    several = any(model.trainings > 1 for model in comparison.models)
    print_table(
        f"Models on the same {counted(comparison.models[0].images, 'radiograph')}",
        (
            "model",
            f"{unit} (95 %)",
            *(("trainings", "SD") if several else ()),
            "against the first (95 %)",
        ),
        [
            (
                model.name,
                model.error.text_of(model.images, scale),
                *(
                    (
                        model.trainings,
                        "" if model.spread is None else f"{scale * model.spread:.2f}",
                    )
                    if several
                    else ()
                ),
                model.against_first.text_of(model.images, scale, "+")
                if model.against_first
                else "",
            )
            for model in comparison.models
        ],
    )
    others = comparison.models[1:]
    print_table(
        "Against the first, by group",
        ("", "images", *(model.name for model in others)),
        [
            (name, images, *(model.groups[name][1].text_of(images, scale, "+") for model in others))
            for name, (images, _) in others[0].groups.items()
        ],
    )
