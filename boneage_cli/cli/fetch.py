"""``boneage fetch``: data sets from RSNA, Kaggle or the user's own files, or of drawn hands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.choices import Uploader
from boneage_cli.cli.commands import Command
from boneage_cli.cli.console import console, print_table, warn
from boneage_cli.cli.options import Split

if TYPE_CHECKING:
    import pandas as pd

    from boneage_cli.datasets.fetching import Fetched

app = typer.Typer(
    add_completion=False,
    name="fetch",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Get radiographs with known bone ages into data/.\n\n"
    "Whatever the source, the result is one folder: images in train/, validation/\n"
    "and test/, one CSV per split (id, path, boneage in months, male, split) and\n"
    "SOURCE.json, which records where the data came from, when, and under which\n"
    "terms. Run an interrupted command again to resume it. A finished data set is\n"
    "never overwritten without --force.\n\n"
    "\b\n"
    "Examples:\n"
    "  boneage fetch demo                       360 drawn hands, in seconds\n"
    "  boneage fetch rsna --accept-terms        RSNA's radiographs, 10.9 GB\n"
    "  boneage fetch kaggle                     the same from Kaggle\n"
    "  boneage fetch local ~/xrays labels.csv   your own files",
)


ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace an existing data set in the folder.")
]
CopyOption = Annotated[
    bool,
    typer.Option(
        "--copy",
        help="Copy the images instead of linking to them. Images in zips are always unpacked.",
    ),
]
ValidationOption = Annotated[
    float,
    typer.Option(
        "--validation-fraction",
        min=0.0,
        max=0.5,
        metavar="F",
        help="If the source has no validation split, set aside this share of the training "
        "radiographs as one, stratified by sex and age; 0 for none.",
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Seed for choosing the radiographs that are set aside.")
]


def _to_option(default: str) -> typer.models.OptionInfo:
    return typer.Option(
        "--to", metavar="DIR", file_okay=False, help=f"The data set's folder. Default: {default}."
    )


@app.command(cls=Command)
def demo(
    to: Annotated[Path | None, _to_option("data/demo")] = None,
    train: Annotated[int, typer.Option(min=0, help="Number of training drawings.")] = 240,
    validation: Annotated[int, typer.Option(min=0, help="Number of validation drawings.")] = 60,
    test: Annotated[int, typer.Option(min=0, help="Number of test drawings.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawings.")] = 42,
    force: ForceOption = False,
) -> None:
    """Draw hands of known bone age, to try everything out: drawings, not patients.

    Ossification centres appear, grow and fuse with age, earlier in girls, in
    the order given in textbooks. The true positions of joints (landmarks.csv)
    and regions (regions.csv) are included. The same numbers and seed give the
    same images. A model trained on them is of no use for real radiographs.

    \b
    Examples:
      boneage fetch demo
      boneage fetch demo --to data/large --train 2000 --validation 300 --test 300
    """
    from boneage_cli.datasets.demo import fetch_demo

    folder = to or Path("data/demo")
    _report(
        fetch_demo(folder, train=train, validation=validation, test=test, seed=seed, force=force),
        next_command="train --model global --gender",
    )


@app.command(cls=Command)
def rsna(
    to: Annotated[Path | None, _to_option("data/rsna")] = None,
    split: Annotated[
        list[Split] | None,
        typer.Option(
            metavar="SPLIT",
            help="train, validation or test; repeatable. Default: all three.",
        ),
    ] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept RSNA's terms of use.")
    ] = False,
    keep_archives: Annotated[
        bool,
        typer.Option(
            "--keep-archives/--no-keep-archives",
            help="Keep the downloaded zips, or delete each once it has been unpacked.",
        ),
    ] = True,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A mirror that serves RSNA's archives under their original names."
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Download the RSNA 2017 challenge's data from RSNA itself, without an account.

    12,611 training, 1,425 validation and 200 test radiographs: 10.9 GB, and as
    much again unpacked. Without [bold]--accept-terms[/bold] the command only shows
    sizes, terms and the citation. Downloads are verified. After an interruption,
    run the command again: it resumes where it stopped, and does not download
    complete files again.

    \b
    Examples:
      boneage fetch rsna
      boneage fetch rsna --split test --accept-terms
      boneage fetch rsna --accept-terms --no-keep-archives --to /scratch/rsna
    """
    from boneage_cli.datasets.disk import readable_bytes
    from boneage_cli.datasets.rsna import ARCHIVES, BASE_URL, fetch_rsna
    from boneage_cli.datasets.rsna_terms import RSNA_CITATION, RSNA_PAGE, RSNA_TERMS

    splits = [choice.value for choice in split or Split]
    archives = [archive for archive in ARCHIVES if archive.split in splits]
    print_table(
        "RSNA Pediatric Bone Age Challenge 2017",
        ("archive", "split", "size"),
        [(archive.name, archive.split, readable_bytes(archive.bytes)) for archive in archives],
    )
    console.print(
        f"Terms: {RSNA_TERMS};\n       in full at {RSNA_PAGE}\nCite:  {RSNA_CITATION}",
        markup=False,
    )
    _report(
        fetch_rsna(
            to or Path("data/rsna"),
            splits=splits,
            accept_terms=accept_terms,
            base_url=base_url or BASE_URL,
            keep_archives=keep_archives,
            force=force,
        )
    )


@app.command(cls=Command)
def kaggle(
    uploader: Annotated[
        Uploader,
        typer.Argument(
            help="kmader: training radiographs, and test ones without labels (9 GB). ipythonx: "
            "training, validation and test."
        ),
    ] = "kmader",
    to: Annotated[Path | None, _to_option("data/kaggle-UPLOADER")] = None,
    copy: CopyOption = False,
    validation_fraction: ValidationOption = 0.1,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Download kmader/rsna-bone-age or ipythonx/rsna-bone-age from Kaggle.

    kagglehub keeps the files in its own cache, ~/.cache/kagglehub (set
    KAGGLEHUB_CACHE to move it), and the data set links to them. If Kaggle asks
    for a log-in, a message explains how to get a token. RSNA's terms of use
    apply here too: research, non-commercial, no redistribution of the images.

    \b
    Examples:
      boneage fetch kaggle
      boneage fetch kaggle ipythonx --copy
    """
    from boneage_cli.datasets.kaggle import fetch_kaggle

    _report(
        fetch_kaggle(
            to or Path(f"data/kaggle-{uploader}"),
            uploader=uploader,
            copy=copy,
            validation_fraction=validation_fraction,
            seed=seed,
            force=force,
        )
    )


@app.command(cls=Command)
def local(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Folders, zips, and CSV or xlsx tables that together form one data set. If an id "
            "occurs in several, the path given first is used.",
            show_default=False,
        ),
    ],
    to: Annotated[Path | None, _to_option("data/local")] = None,
    copy: CopyOption = False,
    validation_fraction: ValidationOption = 0.1,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Make a data set from your own files.

    Radiographs (PNG, JPEG, TIFF, WebP, DICOM) are matched to labels by id:
    1377.png is id 1377. Tables need an id, a bone age in months and a sex, under
    any of the usual headings ('id,boneage,male', 'Image ID,male,Bone Age
    (months)', 'Case ID,Sex,Ground truth bone age (months)', ...). A table
    'id,width,height' restores the aspect ratio of squashed images.

    Splits are recognised by the names of folders and tables (train, val,
    validation, test), or by a 'split' column. Images and labels without a
    counterpart are counted here and listed in unmatched.csv. data/README.md
    describes every layout.

    \b
    Examples:
      boneage fetch local ~/Downloads/rsna-bone-age
      boneage fetch local images.zip labels.xlsx --to data/clinic
      boneage fetch local train/ val/ train.csv val.csv --copy
    """
    from boneage_cli.datasets.local import fetch_local

    _report(
        fetch_local(
            paths,
            to or Path("data/local"),
            copy=copy,
            validation_fraction=validation_fraction,
            seed=seed,
            force=force,
        )
    )


def _report(fetched: Fetched, next_command: str = "check-data") -> None:
    for note in fetched.notes:
        console.print(note, markup=False)
    for warning in fetched.warnings:
        warn(warning)
    version = fetched.source.label_version
    rows = fetched.manifest.groupby("split", sort=False)
    print_table(
        f"Data set {fetched.folder.name}",
        ("split", "images", "labels", "boys", "girls", "months", "label version"),
        [(*_summary(str(split), part), version if split == "test" else "") for split, part in rows],
    )
    state = "already complete in" if fetched.unchanged else "ready in"
    console.print(
        f"{state.capitalize()} {fetched.folder}; SOURCE.json records its origin.", markup=False
    )
    console.print(f"Next: boneage {next_command} --data {fetched.folder}", markup=False)


def _summary(split: str, rows: pd.DataFrame) -> tuple[str, ...]:
    months = rows["boneage"].dropna()
    ages = f"{months.min():g}–{months.max():g}" if len(months) else "none"
    counts = (len(rows), len(months), rows["male"].eq(True).sum(), rows["male"].eq(False).sum())
    return (split, *(f"{count:,}" for count in counts), ages)
