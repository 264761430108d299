"""Loggers of each epoch's metrics: TensorBoard always, Weights & Biases on request."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from boneage_cli.errors import BoneageError


class EventLogger(TensorBoardLogger):
    """Writes TensorBoard events but no file of settings, which are in settings.toml."""

    def save(self) -> None:
        """Writes pending events."""
        self.experiment.flush()


def check_loggers(project: str | None) -> None:
    """Checks, before any work is done, that metrics can be logged.

    Raises:
        BoneageError: Weights & Biases is requested but not installed.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise BoneageError("--wandb: not installed; install it with: pip install 'boneage[wandb]'")


def run_loggers(folder: Path, project: str | None) -> list[Logger]:
    """Makes the loggers of a run.

    Args:
        folder: The run folder, which holds the events; ``run_name`` of it is the run's name and id
            at Weights & Biases, so that a resumed run continues there.
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
    """Ends the run at Weights & Biases, so that the next training starts a new one there."""
    if project is not None:
        import wandb

        wandb.finish()


def run_name(folder: Path) -> str:
    """Returns a run folder's name, prefixed with that of its run if it is a fold or stage."""
    part = re.fullmatch(r"(fold|stage)-\d+", folder.name)
    return f"{run_name(folder.absolute().parent)}-{folder.name}" if part else folder.name
