"""The same data and budget for several settings: every combination trained, then ranked.

A sweep's folder holds a run folder for each combination, with its ``result.json``, and the table of
all of them as ``table.csv`` and ``table.md``.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from boneage_cli.core.config import Experiment, load_experiment
from boneage_cli.core.evaluation.ages import read_prediction_table
from boneage_cli.core.evaluation.metrics import Estimate, mean_interval
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.run_result import RunResult, figure_name
from boneage_cli.core.runs import (
    OUT_OF_FOLD,
    PREDICTIONS,
    SEX_PREDICTIONS,
    VALIDATION,
)
from boneage_cli.core.training.folds import cross_validate
from boneage_cli.core.training.run import Begin, Report, silent, train_into
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.files import whole_file, writing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Combination:
    """One experiment of a sweep.

    Attributes:
        experiment: Its settings; their name is its folder's.
        config_file: The file that they came from.
        base: The name that stands there.
        varied: The settings in which it differs from others, by dotted key.
    """

    experiment: Experiment
    config_file: Path | None
    base: str
    varied: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment.

    Attributes:
        combination: The experiment.
        result: What came of it; None where nothing did.
        error: Why nothing did.
        difference: By how many months its absolute errors are larger than those of the sweep's
            first experiment, paired by radiograph, with the interval of that; where only sexes are
            predicted, by what share more of them are wrong; None of the first, and where they were
            measured on different radiographs.
    """

    combination: Combination
    result: RunResult | None
    error: str | None = None
    difference: Estimate | None = None

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.combination.experiment.name


def combinations(
    configs: Sequence[Path],
    vary: Sequence[str],
    overrides: Sequence[str] = (),
    tell: Callable[[str], None] = lambda note: None,
) -> list[Combination]:
    """Every settings file with every choice of values of the varied settings.

    Args:
        configs: Settings files; none for the defaults.
        vary: Such as ``training.loss=mae,huber``: values with commas between them, each as TOML.
        overrides: As in ``load_experiment``, for all of them.
        tell: As in ``load_experiment``.

    Raises:
        BoneageError: A setting is unknown or refused, or two combinations are one and the same.
    """
    choices = dict(_choice(text) for text in vary)
    if len(choices) < len(vary):
        raise BoneageError("--vary: a setting is named twice; give all its values at once")
    found: dict[str, Combination] = {}
    files: Sequence[Path | None] = configs or [None]
    for config in files:
        for values in itertools.product(*choices.values()):
            varied = dict(zip(choices, values, strict=True))
            base = load_experiment(config, [*overrides], flags=varied, tell=tell)
            for key in varied:
                if any(override.partition("=")[0].strip() == key for override in overrides):
                    raise BoneageError(f"--set {key}: is varied too; choose one of both")
            name = "-".join([base.name, *(_slug(key, value) for key, value in varied.items())])
            if name in found:
                raise BoneageError(
                    f"{name}: twice in this sweep; rename one with name = in its file"
                )
            experiment = base.model_copy(update={"name": name})
            found[name] = Combination(experiment, config, base.name, varied)
    return list(found.values())


def sweep(
    combinations: Sequence[Combination],
    data: Path,
    folder: Path,
    *,
    folds: int | None = None,
    resources: Resources | None = None,
    begin: Callable[[int, Combination], None] = lambda number, combination: None,
    begin_stage: Begin = silent,
    report: Report = silent,
) -> list[Outcome]:
    """Trains each experiment, goes on where an earlier sweep stopped, and writes the table.

    One that cannot be trained, or whose folder holds other settings or data, is told of in the
    table and does not keep the others waiting.

    Args:
        combinations: The experiments.
        data: The data set's folder.
        folder: Where their run folders are made.
        folds: Cross-validate each with so many folds; None to validate on the validation split.
        resources: Devices, cache and logs.
        begin: Called with each experiment and its number, from 1, when its turn comes.
        begin_stage: Called with the settings of each stage, see ``train``.
        report: Called with the figures of each epoch.

    Returns:
        The outcomes, the smallest MAE first and failures last.

    Raises:
        BoneageError: The folder cannot be written or holds the table of another sweep, or several
            devices were asked for.
        Interrupted: The user stopped it.
    """
    resources = (resources or Resources()).on_one_device("sweep")
    outcomes: list[Outcome] = []
    _keep_other_tables(folder, {each.experiment.name for each in combinations})
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for number, combination in enumerate(combinations, 1):
        begin(number, combination)
        experiment = combination.experiment
        place = folder / experiment.name
        try:
            if folds is None:
                result = train_into(
                    place,
                    experiment,
                    RunRecord.new(data, resources, config_file=combination.config_file),
                    begin=begin_stage,
                    report=report,
                )
            else:
                result = cross_validate(
                    experiment,
                    data,
                    folds,
                    folder=place,
                    config_file=combination.config_file,
                    resources=resources,
                    begin_stage=begin_stage,
                    report=report,
                ).result
            # Where the first was refused a run of other settings may lie.
            trained = bool(outcomes) and outcomes[0].result is not None
            first = folder / combinations[0].experiment.name if trained else place
            outcomes.append(Outcome(combination, result, difference=_difference(place, first)))
        except BoneageError as error:
            outcomes.append(Outcome(combination, None, str(error)))
        except OSError as error:
            reason = f"{error.filename or place}: {error.strerror or error}"
            outcomes.append(Outcome(combination, None, reason))
        except torch.OutOfMemoryError:
            message = "out of memory; lower training.batch_size or the image size"
            outcomes.append(Outcome(combination, None, message))
        except Interrupted:
            raise Interrupted(
                f"interrupted in {number} of {len(combinations)}, {experiment.name}; "
                "run the same command again to go on"
            ) from None
        with writing(folder):
            _write_tables(outcomes, folder)
    return ranked(outcomes)


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes in order: MAE, then right sexes where no age is predicted, then failures."""

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
    """The ranked outcomes as texts, a row of headings first."""
    judged = figure_name(outcome.result for outcome in outcomes if outcome.result is not None)
    heads = ("rank", "run", judged, "against the first (95 %)", "weights", "training", "epoch kept")
    rows = [
        (str(rank) if outcome.result else "", outcome.name, *_cells(outcome))
        for rank, outcome in enumerate(outcomes, 1)
    ]
    return [heads, *rows]


def _keep_other_tables(folder: Path, names: set[str]) -> None:
    """Refuses to replace a table of experiments that are not all in this sweep as well."""
    try:
        earlier = set(pd.read_csv(folder / "table.csv")["run"].astype(str))
    except (OSError, ValueError, KeyError):
        return
    if others := sorted(earlier - names):
        raise BoneageError(
            f"{folder}: holds the table of another sweep (with {others[0]}), which this one would "
            "replace; choose another --output"
        )


def _difference(run: Path, first: Path) -> Estimate | None:
    if run == first:
        return None
    own, other = map(_errors, (run, first))
    if own is None or other is None or own.name != other.name or set(own.index) != set(other.index):
        return None
    return mean_interval((own - other.reindex(own.index)).to_numpy())


def _errors(run: Path) -> pd.Series | None:
    """Each radiograph's error in months, or in a sex (0 or 1) where no age is predicted."""
    for kind in (OUT_OF_FOLD, VALIDATION):
        for name in (PREDICTIONS, SEX_PREDICTIONS):
            if not (run / kind / name).exists():
                continue
            table = read_prediction_table(run / kind / name)
            errors = table.get("absolute_error")
            if errors is None:
                errors = (table["predicted_sex"] != table["sex"]).astype(float).rename(name)
            # A radiograph may be in a data set twice.
            return errors.groupby(table["image_id"]).mean()
    return None


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.result is None:
        return "failed", "", "", "", ""
    result, apart = outcome.result, outcome.difference
    against = ""
    if apart is not None:
        # Of sexes in percentage points.
        unit = 1 if result.validation_mae else 100
        ends = (f"{unit * end:+.2f}" for end in (apart.value, apart.low, apart.high))
        against = "{} ({} to {})".format(*ends) + ("" if unit == 1 else " points")
    best = f"{result.best_epoch} of {result.epochs}" if result.best_epoch else ""
    return result.figure, against, f"{result.parameters:,}", f"{result.seconds:.0f} s", best


def _write_tables(outcomes: Sequence[Outcome], folder: Path) -> None:
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
                        "yardstick_mae",
                        "yardstick_sex_accuracy",
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


def _choice(text: str) -> tuple[str, list[Any]]:
    key, separator, values = text.partition("=")
    if not separator or not key.strip() or not values.strip():
        raise BoneageError(
            f"--vary {text}: write section.key=value,value, as training.loss=mae,mse"
        )
    try:
        return key.strip(), tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        return key.strip(), [value.strip() for value in values.split(",")]


def _slug(key: str, value: Any) -> str:
    text = re.sub(r"[^A-Za-z0-9._]+", "_", str(value).lower()).strip("_")
    # A backbone's name says what it is; a number does not.
    return text if isinstance(value, str) else f"{key.rpartition('.')[2]}-{text}"
