"""``boneage clahe``: copies of radiographs with locally equalised contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import console, fail, warn
from boneage_cli.cli.options import DataOption, Split, ThreadsOption
from boneage_cli.errors import BoneageError


def clahe(
    data: DataOption = None,
    split: Annotated[
        list[Split] | None,
        typer.Option(
            "--split",
            help="A split to copy; repeatable. Default: validation and test.",
            show_default=False,
        ),
    ] = None,
    input: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            metavar="PATH",
            help="Radiographs, or folders of them, to copy instead of a data set's splits.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            file_okay=False,
            help="The folder for the copies of --input.",
            show_default=False,
        ),
    ] = None,
    clip_limit: Annotated[
        float,
        typer.Option(
            "--clip-limit", min=0.1, max=100, help="Clip limit of CLAHE: the maximum contrast gain."
        ),
    ] = 2.0,
    tiles: Annotated[
        int, typer.Option("--tiles", min=1, max=512, help="Number of tiles in each direction.")
    ] = 64,
    workers: ThreadsOption = None,
) -> None:
    """Copy radiographs with locally equalised contrast (CLAHE).

    To compare CLAHE with no CLAHE in training and testing alike, do not use this
    command but [bold]--set preprocessing.clahe=true[/bold] with train, or --vary
    preprocessing.clahe=false,true with sweep: it equalises 8 × 8 tiles after the
    resize, in training, evaluation and prediction. This command makes copies of
    the validation and test radiographs (64 × 64 tiles), as one published system
    did.

    [bold]Examples[/bold]

    \b
      boneage clahe
      boneage clahe --data rsna --split test --clip-limit 2 --tiles 8
      boneage clahe --input scans/ --output scans-clahe/

    [bold]What it writes[/bold]

    For each split a folder, such as validation_CLAHE, with one PNG per
    radiograph, and a table of the same name beside it (validation_CLAHE.csv)
    with the same columns as the split's. The original radiographs are not
    changed. 16-bit radiographs give 16-bit copies.

    The copies are not resized, so each tile covers a fixed share of the whole
    radiograph: more tiles bring out smaller structures, and more noise. The
    defaults are those of a published experiment that equalised validation and
    test only; equalising training as well made its results worse.

    [bold]Run it again[/bold] to make only copies that are missing or out of
    date. With other settings, all copies are made again.

    [bold]Exit status[/bold]: 0 if all were copied, 1 if some could not be read
    (each is named, the others are copied), 2 if the command line or the data
    are invalid.
    """
    from boneage_cli.datasets.find_dataset import find_dataset
    from boneage_cli.datasets.offline_clahe import DEFAULT_SPLITS, clahe_files, clahe_split

    if input and (data or split):
        raise BoneageError(
            "--input: cannot be combined with --data or --split; give one or the other"
        )
    if bool(input) != bool(output):
        raise BoneageError("--input and --output: give both, or neither for a data set's splits")
    if input and output:
        results = [clahe_files(input, output, clip_limit=clip_limit, tiles=tiles, workers=workers)]
    else:
        folder = find_dataset(data)
        there = [name for name in DEFAULT_SPLITS if (folder / f"{name}.csv").is_file()]
        names = list(dict.fromkeys(item.value for item in split)) if split else there
        if not names:
            raise BoneageError(f"{folder}: neither validation.csv nor test.csv; choose a --split")
        if "train" in names:
            warn(
                "--split train: in a published experiment, equalising training, validation and "
                "test gave worse results than equalising validation and test only; compare both "
                "before relying on it, and do not mix copies and originals in training"
            )
        results = [
            clahe_split(folder, name, clip_limit=clip_limit, tiles=tiles, workers=workers)
            for name in names
        ]
    for result in results:
        for error in result.errors:
            fail(error)
        console.print(
            f"{result.folder}: {result.made:,} made, {result.kept:,} already there, "
            f"{len(result.errors):,} failed",
            markup=False,
        )
    if any(result.errors for result in results):
        raise typer.Exit(EXIT_FINDINGS)
