"""``boneage clahe``: copies of radiographs with locally equalised contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.console import EXIT_FINDINGS, console, fail, warn
from boneage_cli.cli.options import DataOption, Split, WorkersOption
from boneage_cli.errors import BoneageError


def clahe(
    data: DataOption = None,
    split: Annotated[
        list[Split] | None,
        typer.Option(
            "--split",
            help="A split to copy; give it several times for several. Default: validation and "
            "test.",
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
            help="Where the copies of --input go.",
            show_default=False,
        ),
    ] = None,
    clip_limit: Annotated[
        float,
        typer.Option("--clip-limit", min=0.1, max=100, help="Largest slope of the contrast."),
    ] = 2.0,
    tiles: Annotated[
        int, typer.Option("--tiles", min=1, max=512, help="Tiles across and down, each of them.")
    ] = 64,
    workers: WorkersOption = None,
) -> None:
    """Copy radiographs with locally equalised contrast (CLAHE).

    [bold]Examples[/bold]

    \b
      boneage clahe
      boneage clahe --data rsna --split test --clip-limit 2 --tiles 8
      boneage clahe --input scans/ --output scans-clahe/

    [bold]What it writes[/bold]

    For each split a folder, such as validation_CLAHE, with one PNG for each
    radiograph, and a table of the same name beside it (validation_CLAHE.csv)
    with the split's own columns. The radiographs themselves stay as they are.
    16-bit radiographs give 16-bit copies.

    The copies are not resized, so the tiles are shares of the whole
    radiograph: more tiles bring out smaller structures, and more noise. The
    defaults are those of a published experiment, which equalised validation
    and test alone; equalising training as well made its results worse. To
    equalise in training, evaluation and prediction alike, set
    preprocessing.clahe = true for the model instead.

    [bold]Run it again[/bold] and only what is missing or changed is made.
    Other settings make every copy anew.

    [bold]Exit status[/bold]: 0 when all were copied, 1 when some could not be
    read (each is named, the others are copied), 2 when the command line or the
    data make no sense.
    """
    from boneage_cli.datasets.find_dataset import find_dataset
    from boneage_cli.datasets.offline_clahe import DEFAULT_SPLITS, clahe_files, clahe_split

    if input and (data or split):
        raise BoneageError("--input: goes without --data and --split; give one or the other")
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
                "--split train: a published experiment that equalised training, validation and "
                "test had worse results than with validation and test alone; compare both before "
                "relying on it, and do not mix copies with originals in training"
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
