"""``boneage evaluate``: a model's errors on a split with known ages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import fail, print_fields, print_model, print_table
from boneage_cli.cli.options import (
    BatchSizeOption,
    DataOption,
    DeviceOption,
    ModelOption,
    PrecisionOption,
    TtaOption,
    WorkersOption,
    model_paths,
)
from boneage_cli.wording import counted, decimal

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
            help="The split to evaluate on: train, validation, test, or a copy such as "
            "test_CLAHE. Default: test if it has labels, else validation.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The folder for metrics and plots. Default: evaluation-SPLIT (with --sample, "
            "evaluation-SPLIT-N; on data other than the run's, evaluation-DATA-SPLIT) in the run "
            "folder, or in the current folder; a new name if it holds other metrics.",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Evaluate on N radiographs of the split, stratified by sex and known age; the "
            "same ones every time. Default: all.",
            show_default=False,
        ),
    ] = None,
    stress: Annotated[
        bool,
        typer.Option(
            "--stress",
            help="Also evaluate on the same radiographs rotated, darkened, blurred, cropped, as "
            "DICOM, … (see above); takes about 30 times as long.",
        ),
    ] = False,
    tta: TtaOption = False,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
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
    bootstrap intervals, the median error, the root mean square error (RMSE) and
    the share of errors of up to 6, 12 and 24 months: overall, by sex, and by
    bands of known age (0–5 means below 5 years); correlation and R². The baseline
    is the MAE of predicting the mean age of the data set's train split for
    everyone (if there is none, the mean age of the evaluated radiographs). With
    200 radiographs, the interval of an MAE extends about half a month to each
    side: smaller differences between models are not meaningful.

    For a model that predicts sex (model.targets): the share of correct sexes,
    with its Wilson interval; the AUC; and the Brier score, the mean squared error
    of the probability of being a boy (0 is perfect; always answering one half
    gives 0.25). The baseline is predicting the train split's more frequent sex
    for everyone.

    For a test split, the version of the labels is named. There are two versions
    of RSNA's labels, which differ by 2.8 months on average; do not compare
    figures across them.

    [bold]Stress[/bold]

    --stress changes each radiograph as other hospitals and exports might: its
    pose, exposure, sharpness, frame and file format, one at a time. For each
    change it prints the MAE; the increase in MAE over the unchanged radiographs,
    with the interval of the paired differences (if it includes 0, there is no
    evidence of a change); |Δ|, the mean absolute change of the predictions; Δ,
    their mean change (above 0, children look older; a biased model can improve by
    a shift against its bias); and the number of radiographs that predict would
    refuse, which are nevertheless included. stress.csv describes each change.

    [bold]What it writes[/bold]

    For the test split, the run's row in summary.csv is completed. In the output
    folder: metrics.json, predictions.csv (image_id, true, predicted,
    absolute_error, sex, error), scatter.png and bland_altman.png; with --stress
    also stress.csv, stress.json and stress.png. For a model that predicts sex:
    sex_metrics.json, sex_predictions.csv (image_id, sex, predicted_sex,
    male_probability, boneage, error) and sex.png.

    [bold]Exit status[/bold]: 0 if all radiographs were predicted, 1 if some were
    not, 2 if the command line or the data are invalid.
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
        device=device,
        precision=precision,
        begin=print_model,
        report=_print_measured,
    )
    if done.stressed is not None:
        _print_stress(done.stressed, f"{done.chosen.folder}, {done.chosen.split}")
    files = ", ".join(file.name for file in done.files)
    print_fields({"written": f"{done.folder}: {files}"})
    if done.summary:
        table, columns = done.summary
        print_fields({"summary": f"{table}: {', '.join(columns)}"})
    if done.failed:
        raise typer.Exit(EXIT_FINDINGS)


def _print_measured(predictor: Predictor, chosen: LabelledSplit, measured: Measured) -> None:
    if measured.ages is not None:
        _print_evaluation(measured.ages, chosen)
    elif predictor.predicts_age:
        print_fields({"ages": "not evaluated: no radiograph here has a known bone age"})
    if measured.sexes is not None:
        _print_sexes(measured.sexes, chosen)
    elif predictor.predicts_sex:
        print_fields({"sexes": "not evaluated: no radiograph here has a known sex"})
    for error in measured.failures:
        fail(error)


def _print_evaluation(evaluation: Evaluation, chosen: LabelledSplit) -> None:
    from boneage_cli.core.evaluation.metrics import TOLERANCES

    # Two tables, because each has to fit a terminal of 80 columns.
    print_table(
        f"Errors in months: {chosen.folder}, {chosen.split}"
        + (f", labels: {chosen.label_version}" if chosen.label_version else ""),
        ("", "images", "MAE (95 %)", "median", "RMSE"),
        [
            (
                name,
                m.images,
                m.mae.text_of(m.images),
                f"{m.median_absolute_error:.2f}",
                f"{m.rmse:.2f}",
            )
            for name, m in evaluation.groups.items()
        ],
    )
    print_table(
        "Predicted − known age, and share of errors of at most so many months",
        ("", "bias (95 %)", *(f"≤ {months}" for months in TOLERANCES)),
        [
            (name, m.bias.text_of(m.images), *(f"{share:.1%}" for share in m.within.values()))
            for name, m in evaluation.groups.items()
        ],
    )
    whose = "their own mean" if chosen.mean_training_age is None else "the train split's mean"
    lines = {
        "MAE": f"{evaluation.mae} months",
        "baseline": f"{evaluation.baseline_mae:.2f} months, by predicting {whose} "
        f"{evaluation.baseline:.1f} for everyone",
    }
    if evaluation.overall.correlation is not None:
        lines["Pearson r"] = f"{evaluation.overall.correlation:.4f}"
    if evaluation.overall.r_squared is not None:
        lines["R²"] = f"{evaluation.overall.r_squared:.4f}"
    print_fields(lines | _left_out(evaluation, "age"))


def _print_sexes(evaluation: SexEvaluation, chosen: LabelledSplit) -> None:
    print_table(
        f"Sexes: {chosen.folder}, {chosen.split}",
        ("", "images", "correct (95 %)", "AUC", "Brier"),
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
        "correct": f"{evaluation.accuracy.percent} of sexes",
        "baseline": f"{evaluation.baseline:.1%}, by predicting {whose} more frequent sex for "
        "everyone",
    }
    print_fields(lines | _left_out(evaluation, "sex"))


def _left_out(evaluation: Evaluation | SexEvaluation, what: str) -> dict[str, str]:
    """Returns notes on radiographs that are missing from the metrics or should not be included."""
    lines = {}
    if evaluation.unlabelled:
        lines["left out"] = f"{counted(evaluation.unlabelled, 'radiograph')} without a known {what}"
    if evaluation.failed:
        lines["failed"] = f"{counted(evaluation.failed, 'radiograph')}, not included in any figure"
    if evaluation.refused:
        codes = ", ".join(f"{count} {code}" for code, count in evaluation.refused.items())
        lines["refused"] = f"by predict, but included in these figures: {codes}"
    return lines


def _print_stress(stress: Stress, title: str) -> None:
    print_table(
        f"The same radiographs changed, errors in months: {title}",
        ("", "MAE", "increase (95 %)", "|Δ|", "Δ", "refused"),
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
                    row.mae_increase,
                    f"{row.change:.2f}",
                    decimal(row.shift, 2),
                    row.refused,
                )
                for row in stress.perturbed
            ),
        ],
    )
    for row in stress.rows[1:]:
        if row.unchanged:
            share = f"{row.unchanged} of {counted(row.images, 'image')}"
            print_fields({"unchanged": f"{share}: {row.name}"})
    for name, count in stress.failed.items():
        fail(f"{name}: {counted(count, 'radiograph')} failed; the first: {stress.errors[name]}")
