"""What a run folder says of what came of its run: its ``result.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from boneage_cli.core.evaluation.metrics import Estimate
from boneage_cli.core.runs import NO_RUN, RESULT
from boneage_cli.json_files import read_json_as, write_json


class RunResult(BaseModel):
    """What came of a finished run, or of a cross-validation as a whole.

    Attributes:
        name: The experiment's name.
        date: When it was finished, as 2026-01-31.
        backbone: The encoder's name.
        train_images: Radiographs trained on; of a cross-validation, the most of any fold.
        validation_images: Radiographs measured on; of a cross-validation, those of all folds.
        validation_mae: Mean absolute error in months; None where no age was measured.
        baseline_mae: The same of predicting the mean age for everyone.
        validation_sex_accuracy: Share of right sexes; None where no sex was measured.
        baseline_sex_accuracy: The same of saying one sex of all.
        epochs: Epochs trained; of a cross-validation, the most of any fold.
        best_epoch: The epoch that was kept, from 1; None of a cross-validation.
        parameters: Number of the network's weights.
        seconds: Time of training, that of all stages and folds included.
        hardware: What it was trained on.
        command: What was typed.
        folds: How many folds a cross-validation has; None of a single run.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    date: str
    backbone: str
    train_images: int
    validation_images: int
    validation_mae: Estimate | None = None
    baseline_mae: float | None = None
    validation_sex_accuracy: Estimate | None = None
    baseline_sex_accuracy: float | None = None
    epochs: int
    best_epoch: int | None
    parameters: int
    seconds: float
    hardware: str
    command: str
    folds: int | None = None

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """Reads the result of a run folder.

        Raises:
            BoneageError: It is missing or damaged.
        """
        return read_json_as(cls, folder / RESULT, NO_RUN)

    def write(self, folder: Path) -> None:
        """Writes it into a run folder."""
        left_out = {"folds"} if self.folds is None else set()
        write_json(self.model_dump(mode="json", exclude=left_out), folder / RESULT)

    @property
    def figure(self) -> str:
        """The figure that a model is judged by, with its interval: MAE, or share of right sexes."""
        if self.validation_mae is not None:
            return str(self.validation_mae)
        assert self.validation_sex_accuracy is not None
        return self.validation_sex_accuracy.percent


def figure_name(results: Iterable[RunResult]) -> str:
    """What the ``figure`` of results is, as a heading; of none, what it would be of ages."""
    of_ages = {result.validation_mae is not None for result in results} or {True}
    names = {True: "MAE, months", False: "sexes right"}
    return ", or ".join(names[kind] for kind in (True, False) if kind in of_ages) + " (95 %)"
