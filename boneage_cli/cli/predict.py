"""``boneage predict``: bone ages, or sexes, of radiographs in files, folders, lists and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.choices import PredictionFormat
from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import fail, print_aside, print_model, warn
from boneage_cli.cli.options import (
    BackendOption,
    BatchSizeOption,
    DeviceOption,
    ModelOption,
    PrecisionOption,
    Sex,
    TtaOption,
    WorkersOption,
    model_paths,
)
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted

if TYPE_CHECKING:
    from boneage_cli.core.batch_prediction import BatchOutcome
    from boneage_cli.core.prediction.cases import Prediction


# Suffixes of formats that users may expect, but that are not written.
_NOT_WRITTEN = {"tsv", "xls", "xlsx", "xml", "yaml", "parquet", "html", "pdf", "gz", "bz2", "zip"}


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="Radiographs (PNG, JPEG, TIFF, WebP, DICOM), folders, text lists with one path a "
            "line, CSV tables, or - for a text list on standard input.",
            show_default=False,
            # An unreadable input must not fail the whole command.
            readable=False,
        ),
    ],
    sex: Annotated[
        Sex | None,
        typer.Option(
            "--sex",
            "-s",
            case_sensitive=False,
            help="The sex of every child whose table row names none. Default: what a DICOM file "
            "says.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    format: Annotated[
        PredictionFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="How to write the ages. Default: by the ending of --output, else text.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="A file to write to, which appears when all is done; after an interruption the "
            "same command goes on (CSV and JSON). Default: standard output, each line as soon as "
            "it is known.",
        ),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval",
            metavar="PERCENT",
            help="Add a prediction interval with this coverage in per cent, 50 to 99; 90 is usual.",
            show_default=False,
        ),
    ] = None,
    age: Annotated[
        str | None,
        typer.Option(
            "--age",
            help="The age of every child whose table row names none, as '10y 2m' or 122 (months): "
            "adds the standard deviation score. Default: by the dates of a DICOM file.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            metavar="DIR",
            help="A folder for pictures of where each age comes from, one per radiograph.",
            show_default=False,
        ),
    ] = None,
    dicom_tags: Annotated[
        str | None,
        typer.Option(
            "--dicom-tags",
            metavar="KEYWORDS",
            help="DICOM elements to add as columns of CSV and JSON, by keyword, with commas "
            "between them: PatientID,AccessionNumber,StudyDate,SOPInstanceUID.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also predict images that would be refused, and mark them as doubtful.",
        ),
    ] = False,
    tta: TtaOption = False,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Predict bone age from radiographs of the left hand.

    [bold]Examples[/bold]

      boneage predict hand.png --sex F
      boneage predict scans/ --sex M --output ages.csv
      boneage predict children.csv                  (with columns path and sex)
      boneage predict list.txt --sex F --format json
      find . -name '*.dcm' | boneage predict -      (sex from the DICOM files)
      boneage predict hand.png -s M -m runs/a -m runs/b
      boneage predict hand.png --sex F --age '9y 8m' --interval 90
      boneage predict archive/ -o ages.csv --dicom-tags PatientID,AccessionNumber
      boneage predict scans/ --sex F --explain why/

    [bold]Inputs[/bold]

    Folders are searched to the bottom, in order of name. In a text list, blank
    lines and lines that start with # are left out. A CSV table has a header with
    a column path, filename, file or image, or with a column id, where the files
    are called <id>.png (or .dcm, …) and lie beside the table, in a folder of the
    table's name, or in the folder that a column dir names. It may have a column
    sex, gender or male (M, F, male, female, True, False), a column age_months
    or age_years, and columns width and height with the size of the original
    where the stored image was squashed.
    Relative paths are looked for in the current folder first, then beside the
    list. A list or table of which no path exists is refused. Names on standard
    input are answered as they come.

    [bold]Sex[/bold]

    Models trained with sex as an input require it; they never guess it. A table's
    row comes first, then --sex, then what a DICOM file says: leave --sex out for
    an archive whose files state it. A file that contradicts a row or --sex gets a
    warning, on standard error and in the column warning.

    [bold]Output[/bold]

    Text is one line a radiograph, to the nearest whole month, with the months in
    brackets:

      hand.png: 10 years 6 months (126.5 months)

    With --interval 90 the ends of the interval follow, and with the child's age
    the standard deviation score against the Brush Foundation's children
    (undefined below 3 months, and above 192 for girls and 204 for boys):

      hand.png: 10 years 6 months (126.5 months), 9 years 5 months to 11 years 7
      months, SDS +0.4 (Brush Foundation)

    A model that was trained to predict sex (model.targets) adds it, or gives it
    alone, with the probability that the network assigns to it:

      hand.png: girl (probability 0.931)

    CSV, JSON (one array) and JSON Lines (jsonl, an object a line) have path,
    id, sex, months, years_months, low, high, age, sds, reference,
    predicted_sex, male_probability, laterality, reason, error and warning,
    then the elements of --dicom-tags. Ages are in months; sex is what is
    known of the child, and laterality (L or R) what a DICOM file states. With
    --explain there is a column picture before those elements. A warning says
    that the sex or the child's age contradicts the file or the bone age (an
    age that looks like years instead of months, say, or that of an adult), or
    that a DICOM file contradicts itself on the age, which then is unknown.

    A radiograph that cannot be predicted is reported on standard error and, in
    CSV and JSON, gets a row with its error; the others are predicted all the
    same. The column reason holds a code: unreadable, no-image (a DICOM report,
    say; those found in folders are left out), bad-input (a table's row that makes
    no sense), sex-unknown, other-sex, no-number, or one of the refusals below.

    [bold]Refusals[/bold]

    Images that do not show exactly one whole hand, or that are too different from
    the training images, are refused: no-hand, fingers-cut-off, wrist-cut-off,
    two-hands or unlike-training. Models of registered hands or regions can give
    all five; others no-hand for a blank image, and unlike-training. --force
    answers all the same, without an interval; the line then ends with the doubt,
    in square brackets.

    [bold]Explanations[/bold]

    With --explain DIR each radiograph that was predicted becomes a picture
    DIR/<name>.png (<name>-2.png where two have one name; the column picture
    tells which is whose): on the left the radiograph, on the right the same
    with heat where the model's age comes from (Grad-CAM: what adds to the age
    and what takes from it alike), the regions that the model cuts out, and
    the key points of the hand. For models that predict only sex, it is the
    heat of the sex; for those with a gate between image and sex (sex_fusion),
    the picture says how far it is open. The heat of several models is
    averaged. DIR/README.txt explains how to read it. Pictures of an earlier
    run there are removed when the new ones are made.

    [bold]Exit status[/bold]: 0 when all were predicted, 1 when some were not, 2
    when the command line or an input makes no sense. A research tool, not a
    medical device.
    """
    from boneage_cli.ages import parse_childs_age
    from boneage_cli.interrupts import interrupts_wait

    with interrupts_wait():
        from boneage_cli.core.batch_prediction import predict_batch
        from boneage_cli.core.intervals import parse_level

    outcome = predict_batch(
        [str(path) for path in inputs],
        model_paths(model),
        male=None if sex is None else sex.is_male,
        age=None if age is None else parse_childs_age(age),
        style=format or _style_by_ending(output),
        output=output,
        interval=None if interval is None else parse_level(interval),
        explain=explain,
        tags=list(
            dict.fromkeys(name.strip() for name in (dicom_tags or "").split(",") if name.strip())
        ),
        force=force,
        tta=tta,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        backend=backend,
        begin=None if model else print_model,
        go_on=_print_done,
        tell=_tell,
    )
    if output is not None:
        radiographs = counted(outcome.total, "radiograph")
        print_aside(f"{radiographs}, {_failures(outcome)}: {output}")
    if outcome.left_out:
        files = counted(outcome.left_out, "DICOM file")
        warn(f"{files} without an image (reports and the like) left out")
    for error in outcome.undrawn:
        fail(error)
    if outcome.pictures is not None:
        print_aside(f"{counted(outcome.pictures, 'picture')}: {explain}")
    if outcome.failed or outcome.undrawn:
        raise typer.Exit(EXIT_FINDINGS)


def _tell(prediction: Prediction) -> None:
    """Prints why a prediction failed, or its warning."""
    if prediction.complaint is not None:
        fail(prediction.complaint + ("; --force answers anyway" if prediction.refusal else ""))
    elif prediction.warning is not None:
        warn(f"{prediction.case.path}: {prediction.warning}")


def _failures(outcome: BatchOutcome) -> str:
    """Returns the number of failures and their reasons, the most frequent first."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in outcome.failures.most_common())
    return f"{outcome.failed:,} failed" + (f" ({reasons})" if reasons else "")


def _print_done(done: int) -> None:
    print_aside(f"going on after {counted(done, 'file')} of an interrupted run")


def _style_by_ending(output: Path | None) -> str:
    ending = output.suffix.lower().lstrip(".") if output else ""
    if ending in _NOT_WRITTEN:
        raise BoneageError(
            f"--output {output}: ages are written as text, csv, json or jsonl; name it .txt, .csv, "
            ".json or .jsonl"
        )
    if ending == "ndjson":
        return "jsonl"
    return ending if ending in ("csv", "json", "jsonl") else "text"
