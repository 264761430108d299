"""What a run folder says of how its run was begun: its ``run.json``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from boneage_cli.core.runs import NO_RUN, RECORD
from boneage_cli.datasets.splits import Fold
from boneage_cli.errors import BoneageError
from boneage_cli.json_files import read_json_as, write_json

if TYPE_CHECKING:
    from typing_extensions import Self


class Resources(BaseModel):
    """Where a training runs and what it keeps outside its run folder.

    Attributes:
        cache: Where decoded images are kept; None for the data set's folder.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: The number of machines.
        wandb: The Weights & Biases project that the figures also go to; None for none.
    """

    model_config = ConfigDict(frozen=True)

    cache: Path | None = None
    devices: str = "auto"
    nodes: int = 1
    wandb: str | None = None

    def on_one_device(self, asked: str) -> Self:
        """The same on one device, where several trainings follow each other in one process.

        Args:
            asked: What asks for them, for the message.

        Raises:
            BoneageError: Several devices were asked for.
        """
        if self.nodes > 1 or self.devices not in ("auto", "cpu", "1"):
            raise BoneageError(
                f"{asked}: trains on one device; start it without --devices and --nodes"
            )
        return self.model_copy(update={"devices": "1"}) if self.devices == "auto" else self


class RunRecord(Resources):
    """How a run was begun, and what it goes on with as it began.

    Attributes:
        data: The data set's folder.
        data_digest: Of its labels and images when the run began; None of a cross-validation, whose
            folds have theirs.
        fold: The part of the train and validation splits that is held out; None to validate on the
            validation split, and of a whole cross-validation.
        folds: How many folds a cross-validation has; None of a single run.
        begin_with: A bundle whose weights come in place of those that the settings name.
        teacher: The bundle of the stage that the settings name as the teacher, where that is none
            of this run's own.
        config_file: The file that the settings came from, for the table of runs.
        command: What was typed.
    """

    data: Path
    data_digest: str | None = None
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
        """The record of a run that begins now; see the attributes."""
        record = cls(data=data.absolute(), config_file=config_file, folds=folds)
        resources = resources or Resources()
        cache = resources.cache.absolute() if resources.cache else None
        return record.model_copy(update={**dict(resources), "cache": cache})

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Reads the record of a run folder.

        Raises:
            BoneageError: It is missing or damaged.
        """
        return read_json_as(cls, folder / RECORD, NO_RUN)

    def write(self, folder: Path) -> None:
        """Writes it into a run folder."""
        write_json(self.model_dump(mode="json"), folder / RECORD)

    def of_fold(self, fold: Fold) -> RunRecord:
        """The record of a run of this cross-validation."""
        return self.model_copy(update={"fold": fold, "folds": None})

    def of_stage(self, begin_with: Path | None, teacher: Path | None) -> RunRecord:
        """The record of a stage before this run; see the attributes."""
        return self.model_copy(update={"begin_with": begin_with, "teacher": teacher})

    def is_of_same_work(self, other: RunRecord) -> bool:
        """Whether both train and measure on the same parts of the same data set."""
        return all(
            getattr(self, name) == getattr(other, name) for name in ("data", "fold", "folds")
        )
