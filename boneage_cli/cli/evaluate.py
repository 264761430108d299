"""``boneage evaluate``: a model's errors on a split of known ages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import EXIT_FINDINGS, console, error_console, fail, print_table, warn
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
    from boneage_cli.core.evaluation.sexes import SexEvaluation
    from boneage_cli.core.evaluation.stress import Stress
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
    from boneage_cli.core.evaluation.ages import evaluation_folder, trained_on
    from boneage_cli.core.evaluation.measuring import measure, note_test_figures, write_measured
    from boneage_cli.core.evaluation.stress import stress as measure_stress
    from boneage_cli.core.evaluation.stress import write_stress
    from boneage_cli.core.prediction.inputs import check_pictures
    from boneage_cli.core.prediction.predictor import Predictor
    from boneage_cli.core.runs import OUT_OF_FOLD, VALIDATION
    from boneage_cli.datasets.labelled_split import labelled_split

    bundles = model_paths(model)
    predictor = Predictor.load(bundles, device.value, precision.value)
    error_console.print(f"model: {predictor.description}", markup=False)
    chosen = labelled_split(data, split, sample, labels=predictor.labels, male=predictor.only_male)
    if chosen.of_other_sex:
        warn(f"{chosen.of_other_sex:,} radiographs left out: {predictor.of_one_sex}")
    if output is not None:
        radiographs = {str(Path(path).parent) for path in chosen.manifest["path"]}
        check_pictures(output, sorted(radiographs), "place with --output")
    if stress:
        predictor.check_age("--stress")
    for path in bundles:
        if seen := trained_on(path, chosen.manifest):
            warn(
                f"{path}: {seen:,} of these radiographs were trained on, so the figures flatter "
                f"it; those in {VALIDATION}/ of a run or {OUT_OF_FOLD}/ of a cross-validation are "
                "of others"
            )
    about = {
        "model": [str(path) for path in bundles],
        "data": str(chosen.folder),
        "split": chosen.split,
        "chosen_of": chosen.chosen_of,
        "label_version": chosen.label_version,
        "tta": tta,
    }
    measured = measure(
        predictor,
        chosen.manifest,
        yardstick=chosen.mean_training_age,
        boys_in_training=chosen.boys_in_training,
        batch_size=batch_size,
        workers=workers,
        tta=tta,
        processes=True,
        about=about,
    )
    target = output or evaluation_folder(bundles, chosen.name, about)
    files = write_measured(measured, target, chosen.title)
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
    failed = len(measured.failures)
    if stress:
        stressed = measure_stress(
            predictor, chosen.manifest, batch_size=batch_size, workers=workers, tta=tta, about=about
        )
        files += write_stress(stressed, target, chosen.title)
        _print_stress(stressed, f"{chosen.folder}, {chosen.split}")
        failed += sum(stressed.failed.values())
    console.print(f"{'written':11}{target}: {', '.join(file.name for file in files)}", markup=False)
    if noted := note_test_figures(measured):
        table, columns = noted
        console.print(f"{'summary':11}{table}: {', '.join(columns)}", markup=False)
    if failed:
        raise typer.Exit(EXIT_FINDINGS)


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
        console.print(f"{name:11}{text}")


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
