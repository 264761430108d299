"""The Typer app; each command is imported only when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from boneage_cli import __version__
from boneage_cli.cli.commands import Command, CommandGroup
from boneage_cli.cli.console import console

# Summaries for the list of commands, in the order of work: the first line of each command's help.
COMMANDS = {
    "fetch": "Get radiographs with known bone ages into data/.",
    "check-data": "Check the labels and every image of a data set.",
    "clahe": "Copy radiographs with locally equalised contrast (CLAHE).",
    "locate-rois": "Crop the wrist and the metacarpals with phalanges from radiographs.",
    "train": "Train a bone-age model and write it to a run folder.",
    "sweep": "Train the same recipe with several backbones or settings, and rank them.",
    "compare": "Compare models on the same radiographs, with intervals of the differences.",
    "train-landmarks": "Train the network that finds the key points of the hand, and measure it.",
    "evaluate": "Measure how far a model's bone ages are from the known ones.",
    "predict": "Predict bone age from radiographs of the left hand.",
    "recalibrate": "Fit a model's ages to a site, from a small table of known bone ages.",
    "export": "Write a model for ONNX Runtime or OpenVINO.",
    "bench": "Measure how fast a model is on this machine, or several networks side by side.",
}

# The same for commands that are not listed, because only the package's developers need them.
HIDDEN = {"ship": "Make the model that the package carries of a finished run, with its card."}


class LazyGroup(CommandGroup):
    """Holds placeholders with the summaries; a command is imported when it is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, summary in (COMMANDS | HIDDEN).items():
            self.commands[name] = TyperCommand(
                name, help=summary, hidden=name in HIDDEN, rich_markup_mode="rich"
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Imports and returns the command that the arguments name."""
        name, found, rest = super().resolve_command(ctx, args)
        # During shell completion there may be no command yet.
        return name, found and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Imports a listed or hidden command: its module's group ``app`` or its function."""
    attribute = name.replace("-", "_")
    module = import_module(f"boneage_cli.cli.{attribute}")
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    if not hasattr(module, "app"):
        single.command(name, cls=Command)(getattr(module, attribute))
    command = typer.main.get_command(getattr(module, "app", single))
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
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
