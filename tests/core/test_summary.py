"""Tests that summary.csv has one row per run, from any process and working directory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from boneage_cli.core.config import Experiment
from boneage_cli.core.summary import add_test_metrics, add_to_summary


def test_runs_that_end_at_the_same_time_are_all_in_the_table(
    tiny: Experiment, tmp_path: Path
) -> None:
    def end(number: int) -> None:
        add_to_summary(tmp_path, {"save_dir": str(tmp_path / str(number))}, tiny)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(end, range(12)))
    folders = pd.read_csv(tmp_path / "summary.csv")["save_dir"]
    assert sorted(folders) == sorted(str(tmp_path / str(number)) for number in range(12))


def test_a_run_is_one_row_of_the_table_from_whatever_folder_it_is_named(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    add_to_summary(Path("runs"), {"save_dir": "runs/one", "val_mae": 9.0}, tiny)
    monkeypatch.chdir(tmp_path / "runs")
    add_to_summary(Path(), {"save_dir": "one", "val_mae": 8.0}, tiny)
    assert add_test_metrics(Path("one"), {"test_mae": 7.0}) is not None
    monkeypatch.chdir(tmp_path / "runs" / "one")
    assert add_test_metrics(Path(), {"test_rmse": 10.0}) is not None
    table = pd.read_csv(tmp_path / "runs" / "summary.csv")
    assert table[["val_mae", "test_mae", "test_rmse"]].to_numpy().tolist() == [[8.0, 7.0, 10.0]]
