"""``boneage train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import console, print_fields, print_table
from boneage_cli.cli.options import CacheOption, DataOption, refuse_beside
from boneage_cli.cli.training_lines import print_epoch, print_stage

if TYPE_CHECKING:
    from boneage_cli.core.training.folds import CrossValidation
    from boneage_cli.core.training.outcome import Run
    from boneage_cli.datasets.splits import Fold


def train(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Views of the hand that the network sees: global (the whole hand), carpal or "
            "metacarpal (one region), roi (both regions) or fusion (all three).",
        ),
    ] = None,
    gender: Annotated[
        bool | None,
        typer.Option("--gender/--no-gender", help="Whether the child's sex is an input."),
    ] = None,
    data: DataOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="A settings file such as configs/global.toml; HDA_Project's YAML files work too.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", "-b", help="The encoder: the name of a timm model, small_cnn or m46."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Initial weights: imagenet, none, a run folder, or a .safetensors file.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One setting, such as training.epochs=5; overrides everything but a stage's own "
            "settings (--set 'stages=[]' removes the stages). Repeatable.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Resume an interrupted run, given its folder."),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--runs", help="The folder in which run folders are created.")
    ] = Path("runs"),
    cache: CacheOption = None,
    devices: Annotated[
        str, typer.Option("--devices", help="auto, cpu, or the number of GPUs or processes.")
    ] = "auto",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Number of machines.")] = 1,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            min=2,
            metavar="K",
            help="Cross-validation: train K models on the train and validation splits together, "
            "each on all folds but one, stratified by sex and age.",
        ),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            "--wandb",
            metavar="PROJECT",
            help="Also log to Weights & Biases (requires: pip install 'boneage\\[wandb]').",
        ),
    ] = None,
) -> None:
    """Train a bone-age model and write it to a run folder.

    Settings are taken from the built-in defaults, then --config, then the options
    below, then --set; each overrides the one before. An unknown setting is
    refused, with a suggestion. A GPU is used if there is one. Images are decoded
    once and cached. Ctrl-C is safe: --resume continues to the same result.

    [bold]Examples[/bold]

    \b
      boneage train --model global --gender
      boneage train --data rsna --backbone convnext_tiny
      boneage train --config configs/quick.toml --set training.epochs=5
      boneage train --config configs/quick.toml --folds 5
      boneage train --resume runs/20260101-120000-global

    [bold]The run folder[/bold]

    \b
      best.safetensors    the model of the best epoch (or the last one, see
                          training.keep), for predict
      settings.toml       all settings, to train again with --config
      history.csv         loss, MAE and learning rate of each epoch
      validation/         metrics, predictions and plots
      result.json         MAE (or accuracy of sexes) with its interval, number
                          of weights, training time
      learning_curve.png, TensorBoard events, last.ckpt to resume from

    Settings can define stages that are trained first, as configs/rsna.toml does,
    for example on smaller images. Each stage starts from the weights of the one
    before and has its own run folder inside the run's: stage-1, stage-2, … A
    stage can be the teacher of a later one, even with another backbone
    (training.teacher). docs/settings.md lists every setting.

    runs/summary.csv has one row per run, with every setting. With --folds the run
    folder holds one run folder per fold, and out-of-fold/ has the metrics over
    all radiographs, each predicted by the model that was not trained on it.
    predict and evaluate accept this folder as --model and average the models of
    all folds.

    [bold]Several devices and machines[/bold]

    \b
      boneage train --devices 4
      torchrun --nproc-per-node 4 -m boneage_cli train --devices 4
      srun boneage train --devices 4 --nodes 2

    auto uses all GPUs; CUDA_VISIBLE_DEVICES selects among them. With --folds, or
    with settings that have stages, training runs on one device.
    """
    from boneage_cli.core.experiment_file import load_experiment
    from boneage_cli.core.run_record import Resources
    from boneage_cli.datasets.find_dataset import find_dataset

    if resume is not None:
        others = sorted(context.params.keys() - {"resume"})
        instead = "a run is resumed with the settings it was started with; leave it out"
        refuse_beside(context, "with --resume", dict.fromkeys(others, instead))
    else:
        # Mistakes in these are told at once: importing torch and Lightning takes seconds.
        flags = {
            "model.family": model,
            "model.gender": gender,
            "model.backbone": backbone,
            "model.weights": weights,
        }
        experiment = load_experiment(config, flags=flags, overrides=set_ or ())
        folder = find_dataset(data)
    from boneage_cli.core.training.folds import (
        cross_validate,
        is_cross_validation,
        resume_cross_validation,
    )
    from boneage_cli.core.training.run import is_main_process
    from boneage_cli.core.training.run import resume as go_on
    from boneage_cli.core.training.run import train as train_model

    if resume is not None and is_cross_validation(resume):
        validation = resume_cross_validation(
            resume, begin=_print_fold, begin_stage=print_stage, report=print_epoch
        )
        return _print_cross_validation(validation)
    if resume is not None:
        run = go_on(resume, begin=print_stage, report=print_epoch)
    else:
        resources = Resources(cache=cache, devices=devices, nodes=nodes, wandb=wandb)
        if is_main_process():
            print_fields({"data": folder})
        if folds is not None:
            validation = cross_validate(
                experiment,
                folder,
                folds,
                runs=runs,
                config_file=config,
                resources=resources,
                started=_print_folder,
                begin=_print_fold,
                begin_stage=print_stage,
                report=print_epoch,
            )
            return _print_cross_validation(validation)
        run = train_model(
            experiment,
            folder,
            runs=runs,
            config_file=config,
            resources=resources,
            started=_print_folder,
            begin=print_stage,
            report=print_epoch,
        )
    if is_main_process():
        _print_run(run)
    return None


def _print_run(run: Run) -> None:
    rows = [("epoch kept", f"{run.kept_epoch} of {run.epochs}")]
    plots = ["learning_curve.png"]
    if run.evaluation is not None:
        plots.append("validation/scatter.png")
        rows += [
            ("validation MAE, months", str(run.evaluation.mae)),
            ("baseline: predicting the mean age", f"{run.evaluation.baseline_mae:.2f}"),
        ]
    if run.sexes is not None:
        plots.append("validation/sex.png")
        rows += [
            ("validation sexes correct", run.sexes.accuracy.percent),
            ("baseline: predicting one sex", f"{run.sexes.baseline:.1%}"),
        ]
    rows += [("weights", f"{run.parameters:,}"), ("training time", f"{run.seconds:.0f} s")]
    print_table("Run", ("", ""), rows)
    print_fields({"model": run.bundle, "plots": f"{run.folder}: {', '.join(plots)}"})
    _print_next(run.folder, run.bundle)


def _print_next(folder: Path, model: Path) -> None:
    """Prints the command that predicts with the trained model."""
    from boneage_cli.core.experiment_file import load_experiment
    from boneage_cli.core.runs import SETTINGS

    experiment = load_experiment(folder / SETTINGS)
    sex = "F" if experiment.data.sex == "F" else "M"
    option = f" --sex {sex}" if experiment.model.gender else ""
    print_fields({"next": f"boneage predict INPUT{option} --model {model}"})


def _print_folder(run: Path) -> None:
    print_fields({"run": run})


def _print_fold(fold: Fold) -> None:
    console.print(f"fold {fold.number} of {fold.of}")


def _print_cross_validation(validation: CrossValidation) -> None:
    from boneage_cli.core.training.run_result import figure_name

    rows = [
        (
            f"fold {number}",
            f"{fold.validation_images:,}",
            fold.figure,
            f"{fold.best_epoch} of {fold.epochs}",
            f"{fold.seconds:.0f} s",
        )
        for number, fold in enumerate(validation.folds, 1)
    ]
    whole = validation.result
    rows.append(
        (
            "all, out of fold",
            f"{whole.validation_images:,}",
            whole.figure,
            "",
            f"{whole.seconds:.0f} s",
        )
    )
    columns = ("", "images", figure_name(validation.folds), "epoch kept", "time")
    print_table("Cross-validation", columns, rows)
    ages, sexes = validation.measured.ages, validation.measured.sexes
    if ages is not None:
        console.print(f"Baseline, predicting the mean age: {ages.baseline_mae:.2f} months")
        if sexes is not None:
            console.print(f"Sexes, out of fold: {sexes.accuracy.percent} correct")
    if sexes is not None:
        console.print(f"Baseline, predicting one sex: {sexes.baseline:.1%} correct")
    if whole.epochs > 1 and validation.measured.about["epoch_kept"] == "best":
        console.print(
            "Each model is that of the best epoch on its own fold, which makes these figures "
            "slightly optimistic; training.keep = 'last' avoids this.",
            markup=False,
        )
    print_fields({"models": validation.folder})
    _print_next(validation.folder, validation.folder)
