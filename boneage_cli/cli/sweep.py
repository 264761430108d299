"""``boneage sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import console, fail, print_fields
from boneage_cli.cli.model_table import print_model_table
from boneage_cli.cli.options import CacheOption, DataOption
from boneage_cli.cli.training_lines import print_epoch, print_stage
from boneage_cli.errors import BoneageError


def sweep(
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config", "-c", help="A settings file; repeatable. Default: the built-in settings."
        ),
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones", "-b", metavar="A,B,…", help="The same as --vary model.backbone=A,B,…"
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=V,W,…",
            help="Values of one setting, such as training.loss=mae,huber. Repeatable: every "
            "combination is trained.",
        ),
    ] = None,
    one_at_a_time: Annotated[
        bool,
        typer.Option(
            "--one-at-a-time",
            help="Train the recipe itself, then each --vary value by itself instead of every "
            "combination.",
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="One setting for all runs, such as training.epochs=5. Repeatable."
        ),
    ] = None,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The sweep's folder. Default: runs/sweep-NAME-SETTING, with the name of the first "
            "settings file and the settings that are varied, or runs/sweep-NAME-one-at-a-time.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", min=2, metavar="K", help="Evaluate each by cross-validation with K folds."
        ),
    ] = None,
    cache: CacheOption = None,
    devices: Annotated[str, typer.Option("--devices", help="auto, or cpu to use no GPU.")] = "auto",
) -> None:
    """Train the same recipe with several backbones or settings, and rank them.

    Every settings file is trained with every combination of the varied values, or
    with --one-at-a-time with each value by itself, on the same radiographs.
    Ctrl-C is safe: run the same command again to continue; nothing is trained
    twice. If a run fails (for example because weights cannot be downloaded), this
    is reported at the end and the others are still trained.

    [bold]Examples[/bold]

    \b
      boneage sweep -c configs/quick.toml -b tf_efficientnet_lite0,resnet18
      boneage sweep --vary training.loss=mae,huber --vary model.gender=true,false
      boneage sweep --vary model.family=global,fusion \\
        --vary preprocessing.clahe=false,true
      boneage sweep -c configs/s1-global.toml -c configs/s1-roi.toml \\
        --set training.epochs=5 --set data.train_images=2000
      boneage sweep -c configs/ablation.toml --one-at-a-time \\
        --vary model.gender=false --vary model.pooling=gem,attention

    [bold]One at a time[/bold]

    What is each part of a recipe worth? With --one-at-a-time, the recipe is
    trained as its settings file and --set describe it, and then once for each
    --vary value that differs from its own, with nothing else changed: eight
    settings with one other value each are 9 runs, where all combinations would be
    256. The recipe is the first run, so every difference is that of one change.

    [bold]What it writes[/bold]

    \b
      NAME/          a run folder for each, as written by train
      table.csv      validation MAE (or accuracy of sexes) with its interval,
                     number of weights and training time, best first
      table.md       the same table to paste into a document

    "Against the first" is the increase in MAE over the first run named, in
    months, as a paired difference on the same radiographs; if its interval
    includes 0, these radiographs show no difference. It compares one training of
    each: another seed may change it by a few tenths of a month. If only sex is
    predicted, it is the increase in wrong sexes, in percentage points (in
    table.csv as a share; the column against_first_of says which).

    [bold]Exit status[/bold]: 0 if all were trained, 1 if some failed, 2 if the
    settings or the data are invalid.
    """
    from boneage_cli.core.combinations import Combination, combinations
    from boneage_cli.core.combinations import one_at_a_time as changes_of
    from boneage_cli.core.run_record import Resources
    from boneage_cli.core.runs import RUNS
    from boneage_cli.datasets.find_dataset import find_dataset

    choices = [*([f"model.backbone={backbones}"] if backbones else []), *(vary or ())]
    if not one_at_a_time:
        found = combinations(config or [], choices, set_ or ())
        varied = [key.rpartition(".")[2] for key in found[0].varied]
    elif config and len(config) > 1:
        raise BoneageError("--one-at-a-time: changes one recipe; name one --config")
    else:
        found = changes_of(config[0] if config else None, choices, set_ or ())
        varied = ["one-at-a-time"]
    if not choices and len(found) == 1:
        raise BoneageError(
            "nothing to compare: name what varies with --vary, --backbones or several --config; "
            "'boneage train' trains one"
        )
    folder = find_dataset(data)
    # Mistakes in these are told at once: importing torch and Lightning takes seconds.
    from boneage_cli.core.training.sweep import sweep as run_sweep
    from boneage_cli.core.training.sweep_table import table_rows

    target = output or RUNS / "-".join(["sweep", found[0].base, *varied])
    print_fields({"data": folder, "sweep": f"{target}: {len(found)} to train"})

    def begin(number: int, combination: Combination) -> None:
        console.print(f"{number} of {len(found)}: {combination.experiment.name}", markup=False)

    outcomes = run_sweep(
        found,
        folder,
        target,
        folds=folds,
        resources=Resources(cache=cache, devices=devices),
        begin=begin,
        begin_stage=print_stage,
        report=print_epoch,
    )
    heads, *rows = table_rows(outcomes)
    # The weights, the time and the epoch can be spared: table.csv has them, too.
    print_model_table("Sweep, best first", heads, rows, spare=3)
    failures = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failures:
        fail(f"{outcome.name}: {outcome.error}")
    print_fields({"written": f"{target}: table.csv, table.md"})
    if failures:
        raise typer.Exit(EXIT_FINDINGS)
