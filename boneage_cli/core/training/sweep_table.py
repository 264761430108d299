"""Ranks the experiments of a sweep: ``table.csv`` and ``table.md``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_cli.core.combinations import Combination
from boneage_cli.core.evaluation.metrics import Estimate
from boneage_cli.core.sweep_folder import TABLE, TABLE_MARKDOWN, read_sweep
from boneage_cli.core.training.run_result import RunResult, figure_name
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)
# Columns of the tables that are attributes of a result.
_OF_RESULT = (
    *("baseline_mae", "baseline_sex_accuracy", "parameters", "seconds", "best_epoch", "epochs"),
    *("train_images", "validation_images", "hardware", "date"),
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one experiment.

    Attributes:
        combination: The experiment.
        result: Its result; None if it failed.
        error: Why it failed.
        difference: Its MAE minus that of the sweep's first experiment, months, paired by
            radiograph, with the interval of the difference; if only sexes are predicted, the
            difference of the shares of wrong sexes. None for the first, and if the two were
            evaluated on different radiographs.
    """

    combination: Combination
    result: RunResult | None
    error: str | None = None
    difference: Estimate | None = None

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.combination.experiment.name


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Sorts outcomes: by MAE, then by sex accuracy if no age is predicted, then failures."""

    def place(outcome: Outcome) -> tuple[int, float]:
        if outcome.result is None:
            return 2, 0
        mae, accuracy = outcome.result.validation_mae, outcome.result.validation_sex_accuracy
        if mae is not None:
            return 0, mae.value
        assert accuracy is not None
        return 1, -accuracy.value

    return sorted(outcomes, key=place)


def table_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Returns the ranked outcomes as rows of text, the headings first."""
    judged = figure_name(outcome.result for outcome in outcomes if outcome.result is not None)
    heads = ("run", judged, "against the first (95 %)", "weights", "training", "epoch kept")
    return [heads, *((outcome.name, *_cells(outcome)) for outcome in outcomes)]


def check_table(folder: Path, names: set[str]) -> None:
    """Refuses to replace a table of experiments that are not all in this sweep.

    Args:
        folder: The sweep's folder; it need not exist.
        names: The sweep's experiments.

    Raises:
        BoneageError: It holds the table of another sweep, or another file of that name.
    """
    table = read_sweep(folder)
    if others := sorted(set() if table is None else set(table["run"]) - names):
        raise BoneageError(
            f"{folder}: holds the table of another sweep (with {others[0]}), which this one would "
            "replace; choose another --output"
        )


def write_tables(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes table.csv and table.md, the best experiment first.

    Args:
        outcomes: The outcomes so far, in the order of the training.
        folder: The sweep's folder.

    Raises:
        OSError: The folder cannot be written.
    """
    order = ranked(outcomes)
    rows = []
    for rank, outcome in enumerate(order, 1):
        result = outcome.result
        of_ages = result is not None and result.validation_mae is not None
        estimates = {
            "validation_mae": result and result.validation_mae,
            "validation_sex_accuracy": result and result.validation_sex_accuracy,
            "against_first": outcome.difference,
        }
        row: dict[str, Any] = {"rank": rank if result else None, "run": outcome.name}
        row["number"] = outcomes.index(outcome) + 1
        row |= outcome.combination.varied
        for name, estimate in estimates.items():
            row |= (estimate or _UNKNOWN).columns(name)
        if outcome.difference is not None:
            row["against_first_of"] = "months" if of_ages else "share of wrong sexes"
        rows.append(row | {name: getattr(result, name, None) for name in _OF_RESULT})
        rows[-1]["error"] = outcome.error
    write_csv(pd.DataFrame(rows), folder / TABLE)
    heads, *texts = table_rows(order)
    lines = [heads, ("---",) * len(heads), *texts]
    with whole_file(folder / TABLE_MARKDOWN) as temporary:
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.result is None:
        return "failed", "", "", "", ""
    result, apart = outcome.result, outcome.difference
    against = ""
    if apart is not None:
        # Differences of sex accuracy are shown in percentage points.
        against = apart.text(1, "+") if result.validation_mae else f"{apart.text(100, '+')} points"
    best = f"{result.best_epoch} of {result.epochs}" if result.best_epoch else ""
    return result.figure, against, f"{result.parameters:,}", f"{result.seconds:.0f} s", best
