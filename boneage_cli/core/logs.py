"""Where the figures of each epoch also go: TensorBoard always, Weights & Biases on request."""

from __future__ import annotations

import importlib.util
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
        raise BoneageError("--wandb: not installed; pip install 'boneage[wandb]'")


def run_loggers(folder: Path, project: str | None) -> list[Logger]:
    """The loggers of a run.

    Args:
        folder: The run folder, which holds the events; its name is the run's name and id at
            Weights & Biases, so that a resumed run goes on in the same place.
        project: The project at Weights & Biases; None to log nothing there. ``WANDB_MODE=offline``
            in the environment keeps everything in the run folder.
    """
    loggers: list[Logger] = [EventLogger(folder, name="", version="")]
    if project is not None:
        loggers.append(
            WandbLogger(
                project=project, name=folder.name, id=folder.name, save_dir=folder, resume="allow"
            )
        )
    return loggers
