"""The Typer app: every command, none of its heavy imports."""

from __future__ import annotations

from typing import Annotated

import typer

from boneage_cli import __version__
from boneage_cli.cli import bench, fetch
from boneage_cli.cli.check_data import check_data
from boneage_cli.cli.clahe import clahe
from boneage_cli.cli.console import CommandGroup, console
from boneage_cli.cli.evaluate import evaluate
from boneage_cli.cli.export import export
from boneage_cli.cli.locate_rois import locate_rois
from boneage_cli.cli.predict import predict
from boneage_cli.cli.recalibrate import recalibrate
from boneage_cli.cli.sweep import sweep
from boneage_cli.cli.train import train
from boneage_cli.cli.train_landmarks import train_landmarks

app = typer.Typer(
    cls=CommandGroup,
    name="boneage",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"boneage {__version__}")
        raise typer.Exit


@app.callback()
def boneage(
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; works after a command too."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Bone age from radiographs of the left hand: train, compare and run models.

    [bold]A research tool, not a medical device.[/bold]
    """


app.add_typer(fetch.app, name="fetch")
app.command("check-data")(check_data)
app.command()(clahe)
app.command("locate-rois")(locate_rois)
app.command()(train)
app.command()(sweep)
app.command("train-landmarks")(train_landmarks)
app.command()(evaluate)
app.command()(predict)
app.command()(recalibrate)
app.command()(export)
app.add_typer(bench.app, name="bench")
