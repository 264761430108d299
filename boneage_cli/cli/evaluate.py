"""``boneage evaluate``: a model's errors on a split of known ages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import EXIT_FINDINGS, console, error_console, fail, print_table
from boneage_cli.cli.options import (
    BatchSizeOption,
    DataOption,
    Device,
    DeviceOption,
    ModelOption,
    Precision,
    PrecisionOption,
    TtaOption,
    WorkersOption,
    model_paths,
)

if TYPE_CHECKING:
    from boneage_cli.core.evaluation.ages import Evaluation
    from boneage_cli.core.evaluation.measuring import Measured
    from boneage_cli.core.evaluation.sexes import SexEvaluation
    from boneage_cli.core.evaluation.stress import Stress
    from boneage_cli.core.prediction.predictor import Predictor
    from boneage_cli.datasets.labelled_split import LabelledSplit


def evaluate(
    model: ModelOption = None,
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Which part of it: train, validation, test, or a copy such as test_CLAHE. "
            "Default: test where that has labels, else validation.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The folder for figures and plots. Default: evaluation-SPLIT (with --sample, "
            "evaluation-SPLIT-N; on other data than the run's, evaluation-DATA-SPLIT) in the run "
            "folder, or in the current one; a new one where that has other figures.",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Measure on N radiographs of the split, chosen evenly by sex and known age; the "
            "same each time. Default: all.",
            show_default=False,
        ),
    ] = None,
    stress: Annotated[
        bool,
        typer.Option(
            "--stress",
            help="Also measure the same radiographs turned, dark, blurred, cut, as DICOM, … (see "
            "below); takes about 30 times as long.",
        ),
    ] = False,
    tta: TtaOption = False,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Measure how far a model's bone ages are from the known ones.

    [bold]Examples[/bold]

      boneage evaluate
      boneage evaluate --data rsna --split validation
      boneage evaluate --model runs/a,runs/b --data rsna --tta
      boneage evaluate -m best.safetensors -d data/clinic -o report/
      boneage evaluate --data rsna --split validation --stress --sample 200

    [bold]What it prints[/bold]

    The mean absolute error (MAE) and the bias (predicted − known) with 95 %
    bootstrap intervals, median error, root mean square error (RMSE) and the share
    of errors of at most 6, 12 and 24 months: over all, by sex, and by bands of
    known age (0–5 means below 5 years); correlation and R². Beside them stands
    the MAE of predicting the mean age of the data set's train split for everyone,
    or without one that of what is measured. On 200 radiographs the interval of an
    MAE is about half a month to each side: smaller differences between models
    mean little.

    Of a model that predicts sex (model.targets) the share of sexes that are
    right, with its interval (Wilson's); AUC, how often a boy gets a larger
    probability of being one than a girl; and the Brier score, the mean square of
    that probability's error (0 is perfect, 0.25 is what saying one half has).
    Beside them stands the share that is right by saying the train split's more
    frequent sex of everyone.

    On a test split the version of the labels is named. Two versions of RSNA's
    circulate, 2.8 months apart on average; do not compare figures on one with
    figures on the other.

    [bold]Stress[/bold]

    --stress changes each radiograph as other hospitals and exports would: its
    pose, exposure, sharpness, frame and file format, one at a time. For each
    change it prints the MAE; how much of it is lost against the radiographs as
    they are, with the interval of the paired differences (one that spans 0 shows
    nothing); |Δ|, by how much a prediction moves on average; Δ, the same with its
    sign (above 0 children look older, and a model with a bias gains from what
    pulls the other way); and how many predict would refuse, which are in the
    figures all the same. stress.csv says what each change does.

    [bold]What it writes[/bold]

    The row of a run in summary.csv is told the test split's figures. In a folder:
    metrics.json, predictions.csv (image_id, true, predicted, absolute_error, sex,
    error), scatter.png and bland_altman.png; with --stress also stress.csv,
    stress.json and stress.png. Of sexes: sex_metrics.json, sex_predictions.csv
    (image_id, sex, predicted_sex, male_probability, boneage, error) and sex.png.

    [bold]Exit status[/bold]: 0 when all radiographs were predicted, 1 when some
    were not, 2 when the command line or the data make no sense.
    """
    from boneage_cli.core.evaluation.evaluate import evaluate_model

    done = evaluate_model(
        model_paths(model),
        data,
        split,
        sample=sample,
        output=output,
        stressed=stress,
        tta=tta,
        batch_size=batch_size,
        workers=workers,
        device=device.value,
        precision=precision.value,
        begin=_print_model,
        report=_print_measured,
    )
    if done.stressed is not None:
        _print_stress(done.stressed, f"{done.chosen.folder}, {done.chosen.split}")
    files = ", ".join(file.name for file in done.files)
    _print_lines({"written": f"{done.folder}: {files}"})
    if done.summary:
        table, columns = done.summary
        _print_lines({"summary": f"{table}: {', '.join(columns)}"})
    if done.failed:
        raise typer.Exit(EXIT_FINDINGS)


def _print_model(predictor: Predictor) -> None:
    error_console.print(f"model: {predictor.description}", markup=False)


def _print_measured(predictor: Predictor, chosen: LabelledSplit, measured: Measured) -> None:
    if measured.ages is not None:
        _print_evaluation(measured.ages, chosen)
    elif predictor.predicts_age:
        _print_lines({"ages": "not measured: no radiograph here has a known one"})
    if measured.sexes is not None:
        _print_sexes(measured.sexes, chosen)
    elif predictor.predicts_sex:
        _print_lines({"sexes": "not measured: no radiograph here has a known one"})
    for name, error in measured.failures:
        fail(error if name in error else f"{name}: {error}")


def _print_evaluation(evaluation: Evaluation, chosen: LabelledSplit) -> None:
    from boneage_cli.core.evaluation.metrics import TOLERANCES

    # Two tables, each of which fits a terminal of 80 columns.
    print_table(
        f"Errors in months: {chosen.folder}, {chosen.split}"
        + (f", labels: {chosen.label_version}" if chosen.label_version else ""),
        ("", "images", "MAE (95 %)", "median", "RMSE"),
        [
            (name, m.images, m.mae, f"{m.median_absolute_error:.2f}", f"{m.rmse:.2f}")
            for name, m in evaluation.groups.items()
        ],
    )
    print_table(
        "Predicted − known age, and errors of at most …",
        ("", "bias (95 %)", *(f"{months} months" for months in TOLERANCES)),
        [
            (name, m.bias, *(f"{share:.1%}" for share in m.within.values()))
            for name, m in evaluation.groups.items()
        ],
    )
    whose = "their own mean" if chosen.mean_training_age is None else "the train split's mean"
    lines = {
        "MAE": f"{evaluation.mae} months",
        "yardstick": f"{evaluation.yardstick_mae:.2f} months, by predicting {whose} "
        f"{evaluation.yardstick:.1f} for everyone",
    }
    if evaluation.overall.correlation is not None:
        lines["Pearson r"] = f"{evaluation.overall.correlation:.4f}"
    if evaluation.overall.r_squared is not None:
        lines["R²"] = f"{evaluation.overall.r_squared:.4f}"
    _print_lines(lines | _left_out(evaluation, "age"))


def _print_sexes(evaluation: SexEvaluation, chosen: LabelledSplit) -> None:
    print_table(
        f"Sexes: {chosen.folder}, {chosen.split}",
        ("", "images", "right (95 %)", "AUC", "Brier"),
        [
            (
                name,
                m.images,
                m.accuracy.percent,
                "" if m.auc is None else f"{m.auc:.3f}",
                f"{m.brier:.3f}",
            )
            for name, m in evaluation.groups.items()
        ],
    )
    whose = "their own" if chosen.boys_in_training is None else "the train split's"
    lines = {
        "right": f"{evaluation.accuracy.percent} of sexes",
        "yardstick": f"{evaluation.yardstick:.1%}, by saying {whose} more frequent sex of everyone",
    }
    _print_lines(lines | _left_out(evaluation, "sex"))


def _left_out(evaluation: Evaluation | SexEvaluation, what: str) -> dict[str, str]:
    """What is in the figures and ought not to be, or the other way round."""
    lines = {}
    if evaluation.unlabelled:
        lines["left out"] = f"{evaluation.unlabelled} radiographs without a known {what}"
    if evaluation.failed:
        lines["failed"] = f"{evaluation.failed} radiographs, which are in no figure"
    if evaluation.refused:
        codes = ", ".join(f"{count} {code}" for code, count in evaluation.refused.items())
        lines["refused"] = f"by predict, though in these figures: {codes}"
    return lines


def _print_lines(lines: dict[str, str]) -> None:
    for name, text in lines.items():
        console.print(f"{name:11}{text}", markup=False)


def _print_stress(stress: Stress, title: str) -> None:
    print_table(
        f"The same radiographs in other ways, errors in months: {title}",
        ("", "MAE", "lost (95 %)", "|Δ|", "Δ", "refused"),
        [
            (
                "unperturbed",
                f"{stress.unperturbed.mae.value:.2f}",
                *("", "", ""),
                stress.unperturbed.refused,
            ),
            *(
                (
                    row.name,
                    f"{row.mae.value:.2f}",
                    row.lost,
                    f"{row.change:.2f}",
                    # Adding zero turns -0.0 into 0.0.
                    f"{round(row.shift, 2) + 0.0:.2f}",
                    row.refused,
                )
                for row in stress.perturbed
            ),
        ],
    )
    for row in stress.rows[1:]:
        if row.unchanged:
            console.print(f"{'as it was':11}{row.unchanged} of {row.images} images: {row.name}")
    for name, count in stress.failed.items():
        fail(f"{name}: {count} of the radiographs failed; the first: {stress.errors[name]}")
