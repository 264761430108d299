"""Trains every combination of settings on the same data and ranks them.

A sweep's folder holds a run folder for each combination, with its ``result.json``, and the table of
all of them as ``table.csv`` and ``table.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from boneage_cli.core.bundle import build_network
from boneage_cli.core.combinations import Combination
from boneage_cli.core.evaluation.comparison import paired_difference
from boneage_cli.core.experiment_file import earlier_stages
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.training.folds import cross_validate
from boneage_cli.core.training.run import Begin, Report, silent, train_into
from boneage_cli.core.training.run_folder import check_folder
from boneage_cli.core.training.sweep_table import Outcome, check_table, ranked, write_tables
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.files import explaining_write_errors
from boneage_cli.locks import only_process
from boneage_cli.models.network import RSNA_AGES


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
    """Trains each experiment, resuming an earlier sweep, and writes the table.

    An experiment that cannot be trained is listed as failed in the table, and the next one follows.

    Args:
        combinations: The experiments.
        data: The data set's folder.
        folder: The folder in which their run folders are made.
        folds: Number of folds to cross-validate each with; None to use the validation split.
        resources: Devices, cache and logs.
        begin: Called with the number, from 1, of each experiment and with itself before it starts.
        begin_stage: Called with the settings of each stage, see ``train``.
        report: Called with the metrics of each epoch.

    Returns:
        The outcomes, the smallest MAE first and failures last.

    Raises:
        BoneageError: A network cannot be built, the folder cannot be written or holds another
            sweep, or several devices were requested.
        Interrupted: The user stopped it.
    """
    resources = (resources or Resources()).on_one_device("sweep")
    # Built now, so that invalid settings fail before others are trained for hours.
    for each in combinations:
        for stage in (*earlier_stages(each.experiment), each.experiment):
            build_network(stage, *RSNA_AGES)
    check_table(folder, {each.experiment.name for each in combinations})
    for each in combinations:
        record = RunRecord.new(data, folds=folds)
        check_folder(folder / each.experiment.name, each.experiment, record)
    with explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder, f"{folder}: another process is training this sweep; wait for that"):
        return _sweep(combinations, data, folder, folds, resources, begin, begin_stage, report)


def _sweep(
    combinations: Sequence[Combination],
    data: Path,
    folder: Path,
    folds: int | None,
    resources: Resources,
    begin: Callable[[int, Combination], None],
    begin_stage: Begin,
    report: Report,
) -> list[Outcome]:
    """Implements ``sweep`` in its folder."""
    outcomes: list[Outcome] = []
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
            # If the first failed, its folder may hold a run of the data as they were before.
            trained = bool(outcomes) and outcomes[0].result is not None
            first = folder / combinations[0].experiment.name if trained else place
            outcomes.append(
                Outcome(combination, result, difference=paired_difference(place, first))
            )
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
        with explaining_write_errors(folder):
            write_tables(outcomes, folder)
    return ranked(outcomes)
