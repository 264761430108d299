"""Ranks the experiments of a sweep: ``table.csv`` and ``table.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boneage_cli.core.combinations import Combination
from boneage_cli.core.evaluation.metrics import Estimate
from boneage_cli.core.training.run_result import RunResult, figure_name
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file


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
    heads = ("rank", "run", judged, "against the first (95 %)", "weights", "training", "epoch kept")
    rows = [
        (str(rank) if outcome.result else "", outcome.name, *_cells(outcome))
        for rank, outcome in enumerate(outcomes, 1)
    ]
    return [heads, *rows]


def check_table(folder: Path, names: set[str]) -> None:
    """Refuses to replace a table of experiments that are not all in this sweep.

    Args:
        folder: The sweep's folder; it need not exist.
        names: The sweep's experiments.

    Raises:
        BoneageError: It holds the table of another sweep.
    """
    try:
        earlier = set(pd.read_csv(folder / "table.csv")["run"].astype(str))
    except (OSError, ValueError, KeyError):
        return
    if others := sorted(earlier - names):
        raise BoneageError(
            f"{folder}: holds the table of another sweep (with {others[0]}), which this one would "
            "replace; choose another --output"
        )


def write_tables(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes table.csv and table.md, the best experiment first.

    Args:
        outcomes: The outcomes so far.
        folder: The sweep's folder.

    Raises:
        OSError: The folder cannot be written.
    """
    order = ranked(outcomes)
    rows = []
    for rank, outcome in enumerate(order, 1):
        result = outcome.result
        mae = result and result.validation_mae
        accuracy = result and result.validation_sex_accuracy
        rows.append(
            {
                "rank": rank if outcome.result else None,
                "run": outcome.name,
                **outcome.combination.varied,
                "validation_mae": getattr(mae, "value", None),
                "mae_low": getattr(mae, "low", None),
                "mae_high": getattr(mae, "high", None),
                "validation_sex_accuracy": getattr(accuracy, "value", None),
                "sex_accuracy_low": getattr(accuracy, "low", None),
                "sex_accuracy_high": getattr(accuracy, "high", None),
                **{
                    f"against_first{end}": getattr(outcome.difference, name, None)
                    for end, name in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                "against_first_of": None
                if outcome.difference is None
                else "months"
                if mae
                else "share of wrong sexes",
                **{
                    key: getattr(result, key, None)
                    for key in (
                        "baseline_mae",
                        "baseline_sex_accuracy",
                        "parameters",
                        "seconds",
                        "best_epoch",
                        "epochs",
                        "train_images",
                        "validation_images",
                        "hardware",
                        "date",
                    )
                },
                "error": outcome.error,
            }
        )
    with whole_file(folder / "table.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    heads, *texts = table_rows(order)
    lines = [heads, ("---",) * len(heads), *texts]
    with whole_file(folder / "table.md") as temporary:
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.result is None:
        return "failed", "", "", "", ""
    result, apart = outcome.result, outcome.difference
    against = ""
    if apart is not None:
        # Differences of sex accuracy are shown in percentage points.
        unit = 1 if result.validation_mae else 100
        ends = (f"{unit * end:+.2f}" for end in (apart.value, apart.low, apart.high))
        against = "{} ({} to {})".format(*ends) + ("" if unit == 1 else " points")
    best = f"{result.best_epoch} of {result.epochs}" if result.best_epoch else ""
    return result.figure, against, f"{result.parameters:,}", f"{result.seconds:.0f} s", best
