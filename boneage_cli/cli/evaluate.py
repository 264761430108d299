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
    from boneage_cli.core.evaluation import Evaluation
    from boneage_cli.core.stress import Stress
    from boneage_cli.datasets.labelled_split import LabelledSplit


def evaluate(
    model: ModelOption = None,
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Which part of it: train, validation, test, or a copy such as test_CLAHE. "
            "Default: test where that has ages, else validation.",
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
            "evaluation-SPLIT-N) in the run folder, or in the current one.",
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
    known age (0–5 means below 5 years). Beside them stands the MAE of predicting
    the mean age of the data set's train split for everyone, or without one that
    of what is measured. On 200 radiographs the interval of an MAE is about half a
    month to each side: smaller differences between models mean little.

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
    stress.json and stress.png.

    [bold]Exit status[/bold]: 0 when all radiographs were predicted, 1 when some
    were not, 2 when the command line or the data make no sense.
    """
    from boneage_cli.core.evaluation import evaluate as measure
    from boneage_cli.core.evaluation import (
        evaluation_folder,
        note_test_figures,
        trained_on_by_folds,
        write_evaluation,
    )
    from boneage_cli.core.inputs import check_pictures
    from boneage_cli.core.prediction import Predictor
    from boneage_cli.core.runs import OUT_OF_FOLD
    from boneage_cli.core.stress import stress as measure_stress
    from boneage_cli.core.stress import write_stress
    from boneage_cli.datasets.labelled_split import labelled_split

    chosen = labelled_split(data, split, sample)
    if output is not None:
        radiographs = {str(Path(path).parent) for path in chosen.manifest["path"]}
        check_pictures(output, sorted(radiographs), "place with --output")
    bundles = model_paths(model)
    predictor = Predictor.load(bundles, device.value, precision.value)
    error_console.print(f"model: {predictor.description}", markup=False)
    for path in bundles:
        if seen := trained_on_by_folds(path, chosen.manifest):
            warn(
                f"{path}: {seen:,} of these radiographs were trained on in its cross-validation, "
                f"so the figures flatter it; {OUT_OF_FOLD}/ of the cross-validation has fair ones"
            )
    about = {
        "model": [str(path) for path in bundles],
        "data": str(chosen.folder),
        "split": chosen.split,
        "chosen_of": chosen.chosen_of,
        "label_version": chosen.label_version,
        "tta": tta,
    }
    evaluation = measure(
        predictor,
        chosen.manifest,
        yardstick=chosen.mean_training_age,
        batch_size=batch_size,
        workers=workers,
        tta=tta,
        processes=True,
        about=about,
    )
    target = output or evaluation_folder(bundles, chosen.name)
    files = write_evaluation(evaluation, target, chosen.title)
    _print_evaluation(evaluation, chosen)
    for name, error in evaluation.failures:
        fail(error if name in error else f"{name}: {error}")
    failed = evaluation.failed
    if stress:
        stressed = measure_stress(
            predictor, chosen.manifest, batch_size=batch_size, workers=workers, tta=tta, about=about
        )
        files += write_stress(stressed, target, chosen.title)
        _print_stress(stressed, f"{chosen.folder}, {chosen.split}")
        failed += sum(stressed.failed.values())
    console.print(f"{'written':11}{target}: {', '.join(file.name for file in files)}", markup=False)
    if table := note_test_figures(evaluation):
        console.print(f"{'summary':11}{table}: test_mae, test_rmse", markup=False)
    if failed:
        raise typer.Exit(EXIT_FINDINGS)


def _print_evaluation(evaluation: Evaluation, chosen: LabelledSplit) -> None:
    from boneage_cli.core.metrics import TOLERANCES

    groups = {"all": evaluation.overall, **evaluation.by_sex, **evaluation.by_age}
    # Two tables, each of which fits a terminal of 80 columns.
    print_table(
        f"Errors in months: {chosen.folder}, {chosen.split}"
        + (f", labels: {chosen.label_version}" if chosen.label_version else ""),
        ("", "images", "MAE (95 %)", "median", "RMSE"),
        [
            (name, m.images, m.mae, f"{m.median_absolute_error:.2f}", f"{m.rmse:.2f}")
            for name, m in groups.items()
        ],
    )
    print_table(
        "Predicted − known age, and errors of at most …",
        ("", "bias (95 %)", *(f"{months} months" for months in TOLERANCES)),
        [
            (name, m.bias, *(f"{share:.1%}" for share in m.within.values()))
            for name, m in groups.items()
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
    if evaluation.unlabelled:
        lines["left out"] = f"{evaluation.unlabelled} radiographs without a known age"
    if evaluation.failed:
        lines["failed"] = f"{evaluation.failed} radiographs, which are in no figure"
    if evaluation.refused:
        codes = ", ".join(f"{count} {code}" for code, count in evaluation.refused.items())
        lines["refused"] = f"by predict, though in these figures: {codes}"
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
