"""The table of all runs, ``summary.csv``: one row for each run folder in the same folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_cli.core.config import Experiment
from boneage_cli.core.settings_errors import flatten
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageWarning
from boneage_cli.locks import locked_folder

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.csv"
SUMMARY_COLUMNS = (
    "model_name",
    "num_params",
    "total_training_time_s",
    "train_mae",
    "train_rmse",
    "val_mae",
    "val_rmse",
    "test_mae",
    "test_rmse",
    "val_sex_accuracy",
    "test_sex_accuracy",
    "stopped_epoch",
    "best_epoch",
    "config_file",
    "save_dir",
    # In addition to HDA_Project's.
    "data",
    "test_images",
    "test_label_version",
)


def add_to_summary(runs: Path, row: Mapping[str, Any], experiment: Experiment) -> None:
    """Adds a run to ``summary.csv``: HDA_Project's columns, accuracies, ``cfg.`` per setting.

    A row of the same run folder is replaced. A table that cannot be read, or that is not one of
    runs, is left unchanged, with a warning: the run itself is complete.
    """
    import pandas as pd

    path = runs / SUMMARY
    settings = {f"cfg.{key}": value for key, value in flatten(experiment.model_dump(mode="json"))}
    line = pd.DataFrame([{column: row.get(column) for column in SUMMARY_COLUMNS} | settings])
    # Several trainings may end at the same time.
    with locked_folder(runs):
        if path.exists():
            try:
                earlier, folders = _runs_in(path)
            except (OSError, ValueError, KeyError):
                warnings.warn(
                    f"{path}: cannot be read as a table of runs, so this run is not added to it; "
                    "move the file away",
                    BoneageWarning,
                    stacklevel=2,
                )
                return
            earlier = earlier[folders != Path(row["save_dir"]).name]
            line = pd.concat([earlier, line.astype(object)], ignore_index=True)
        write_csv(line, path)


def add_test_metrics(run: Path, figures: Mapping[str, Any]) -> Path | None:
    """Fills the test metrics into a run's row of ``summary.csv``.

    Args:
        run: The run folder.
        figures: The ``test_`` columns; None for unknown values.

    Returns:
        The table's path; None if it has no row of this run, or cannot be read or written.
    """
    path = run.absolute().parent / SUMMARY
    try:
        with locked_folder(path.parent):
            table, folders = _runs_in(path)
            rows = folders == run.absolute().name
            if not rows.any():
                return None
            for name, value in figures.items():
                table.loc[rows, name] = value
            write_csv(table, path)
    except (OSError, ValueError, KeyError):
        return None
    return path


def _runs_in(path: Path) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Returns a table of runs and their folder names; OSError, ValueError or KeyError if invalid.

    Rows are matched by folder name, since ``save_dir`` may be relative to any working directory.
    """
    import pandas as pd

    table = pd.read_csv(path, dtype=object, encoding_errors="surrogateescape")
    return table, table["save_dir"].map(lambda folder: Path(str(folder)).name)
