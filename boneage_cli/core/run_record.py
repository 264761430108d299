"""The record of how a run was started, ``run.json`` in its folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from boneage_cli.core.runs import NO_RUN, RUN_RECORD
from boneage_cli.datasets.splits import Fold
from boneage_cli.errors import BoneageError
from boneage_cli.json_files import read_json_as, write_json

if TYPE_CHECKING:
    from typing_extensions import Self


class Resources(BaseModel):
    """Devices of a training, and its data outside the run folder.

    Attributes:
        cache: Folder of the cache of decoded images; None for the data set's folder.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: Number of machines.
        wandb: Weights & Biases project that the metrics are also logged to; None for none.
    """

    model_config = ConfigDict(frozen=True)

    cache: Path | None = None
    devices: str = "auto"
    nodes: int = 1
    wandb: str | None = None

    def on_one_device(self, asked: str) -> Self:
        """Returns these resources limited to one device, for several trainings in one process.

        Args:
            asked: The option or command that needs this, for the message.

        Raises:
            BoneageError: Several devices were requested.
        """
        if self.nodes > 1 or self.devices not in ("auto", "cpu", "1"):
            raise BoneageError(
                f"{asked}: trains on one device; start it without --devices and --nodes"
            )
        return self.model_copy(update={"devices": "1"}) if self.devices == "auto" else self


class RunRecord(Resources):
    """How a run was started, and how it is resumed.

    Attributes:
        data: The data set's folder.
        data_digest: Digest of its labels and images at the start of the run; None for a
            cross-validation, whose folds have their own.
        settings_digest: Digest of the settings file at the start of the run; None before it.
        fold: Held-out fold; None for a run that uses the validation split, and for the record of a
            whole cross-validation.
        folds: Number of folds of a cross-validation; None for a single run.
        begin_with: Bundle with the initial weights, which replaces those named in the settings.
        teacher: Bundle of the stage that the settings name as the teacher, if that stage is not
            part of this run.
        config_file: The settings file, for the table of runs.
        command: The command line.
    """

    data: Path
    data_digest: str | None = None
    settings_digest: str | None = None
    fold: Fold | None = None
    folds: int | None = None
    begin_with: Path | None = None
    teacher: Path | None = None
    config_file: Path | None = None
    command: str = Field(default_factory=lambda: shlex.join(sys.argv))

    @classmethod
    def new(
        cls,
        data: Path,
        resources: Resources | None = None,
        *,
        config_file: Path | None = None,
        folds: int | None = None,
    ) -> RunRecord:
        """Returns the record of a run that starts now; see the attributes."""
        started = dict(resources or Resources())
        started["cache"] = started["cache"] and started["cache"].absolute()
        return cls(data=data.absolute(), config_file=config_file, folds=folds, **started)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Reads the record of a run folder.

        Raises:
            BoneageError: The record is missing or damaged.
        """
        return read_json_as(cls, folder / RUN_RECORD, NO_RUN)

    def write(self, folder: Path) -> None:
        """Writes the record into a run folder."""
        write_json(self.model_dump(mode="json"), folder / RUN_RECORD)

    def of_fold(self, fold: Fold) -> RunRecord:
        """Returns the record of one fold's run of this cross-validation."""
        return self.model_copy(update={"fold": fold, "folds": None})

    def of_stage(self, begin_with: Path | None, teacher: Path | None) -> RunRecord:
        """Returns the record of an earlier stage of this run; see the attributes."""
        return self.model_copy(update={"begin_with": begin_with, "teacher": teacher})

    def is_of_same_work(self, other: RunRecord) -> bool:
        """Whether both train and validate on the same parts of the same data set."""
        return all(
            getattr(self, name) == getattr(other, name) for name in ("data", "fold", "folds")
        )


def is_trained_on(run: Path, data: str | Path) -> bool:
    """Whether a run, or a cross-validation, was trained on this data set."""
    try:
        return RunRecord.read(run).data.resolve() == Path(data).resolve()
    except BoneageError:
        return False
