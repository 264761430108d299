"""The result of a run, stored as ``result.json`` in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from boneage_cli.core.evaluation.metrics import Estimate
from boneage_cli.core.runs import NO_RUN, RESULT
from boneage_cli.json_files import read_json_as, write_json


class RunResult(BaseModel):
    """The result of a finished run, or of a whole cross-validation.

    Attributes:
        name: The experiment's name.
        date: When it was finished, as 2026-01-31.
        backbone: The encoder's name.
        train_images: Number of training radiographs; for a cross-validation, of the largest fold.
        validation_images: Number of held-out radiographs; for a cross-validation, of all folds.
        validation_mae: Mean absolute error in months; None if no age is predicted.
        baseline_mae: MAE of predicting the mean age for everyone, months.
        validation_sex_accuracy: Share of right sexes; None if no sex is predicted.
        baseline_sex_accuracy: Accuracy of predicting the same sex for everyone.
        epochs: Epochs trained; for a cross-validation, the most of any fold.
        best_epoch: The epoch that was kept, from 1; None for a cross-validation.
        parameters: Number of the network's weights.
        seconds: Training time, including all stages and folds.
        hardware: The hardware of the training.
        command: The command line.
        folds: Number of folds of a cross-validation; None for a single run.
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
        """The main metric with its interval, as text: MAE, or else the share of right sexes."""
        if self.validation_mae is not None:
            return str(self.validation_mae)
        assert self.validation_sex_accuracy is not None
        return self.validation_sex_accuracy.percent


def figure_name(results: Iterable[RunResult]) -> str:
    """Returns the heading for the ``figure`` of results; that of ages if there are none."""
    of_ages = {result.validation_mae is not None for result in results} or {True}
    names = {True: "MAE, months", False: "sexes right"}
    return ", or ".join(names[kind] for kind in (True, False) if kind in of_ages) + " (95 %)"
