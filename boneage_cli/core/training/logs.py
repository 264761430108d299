"""Where the figures of each epoch also go: TensorBoard always, Weights & Biases on request."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from boneage_cli.errors import BoneageError


class EventLogger(TensorBoardLogger):
    """TensorBoard events alone: the settings stand in settings.toml, not in a second file."""

    def save(self) -> None:
        """Writes the events that wait."""
        self.experiment.flush()


def check_loggers(project: str | None) -> None:
    """Finds out, before any work is done, whether the figures can be logged.

    Raises:
        BoneageError: Weights & Biases is wanted and not installed.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise BoneageError("--wandb: not installed; install it with: pip install 'boneage[wandb]'")


def run_loggers(folder: Path, project: str | None) -> list[Logger]:
    """The loggers of a run.

    Args:
        folder: The run folder, which holds the events; its name, after that of the run it is a
            fold or stage of, is the run's name and id at Weights & Biases, so that a resumed run
            goes on in the same place.
        project: The project at Weights & Biases; None to log nothing there. ``WANDB_MODE=offline``
            in the environment keeps everything in the run folder.
    """
    loggers: list[Logger] = [EventLogger(folder, name="", version="")]
    if project is not None:
        name = run_name(folder)
        loggers.append(
            WandbLogger(project=project, name=name, id=name, save_dir=folder, resume="allow")
        )
    return loggers


def close_loggers(project: str | None) -> None:
    """Ends the run at Weights & Biases, so that the next in this process is one of its own."""
    if project is not None:
        import wandb

        wandb.finish()


def run_name(folder: Path) -> str:
    """The name of a run folder, after that of the run which it is a fold or stage of."""
    part = re.fullmatch(r"(fold|stage)-\d+", folder.name)
    return f"{run_name(folder.absolute().parent)}-{folder.name}" if part else folder.name
