"""Tests of ``boneage check-data`` on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.datasets.manifest import write_manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/mine`` below the current folder: six images with labels."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/mine")
    random = np.random.default_rng(0)
    records = []
    for split, names in {"train": "abcd", "validation": "ef"}.items():
        (folder / split).mkdir(parents=True)
        for name in names:
            pixels = random.integers(0, 256, (80, 80), np.uint8)
            cv2.imwrite(str(folder / split / f"{name}.png"), pixels)
            records.append((name, f"{split}/{name}.png", 120.0, name in "ace", split))
    columns = ["id", "path", "boneage", "male", "split"]
    write_manifest(pd.DataFrame(records, columns=columns), folder)
    return folder


def check(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check-data", *arguments])
    return result.exit_code, result.output


def test_a_good_data_set_ends_with_a_summary_and_status_0(folder: Path) -> None:
    status, output = check()
    assert status == 0
    assert output.splitlines()[-1].startswith("data/mine: 6 rows, 6 images read, 0 errors")
    assert output.splitlines()[-1].endswith("passed")


def test_errors_end_with_status_1_the_row_and_the_way_out(folder: Path) -> None:
    (folder / "train" / "b.png").unlink()
    status, output = check("--data", "mine")
    assert status == 1
    assert "file-missing × 1: restore the image, or delete the row" in output
    assert "train.csv:3: train/b.png: no such file" in output
    assert output.splitlines()[-1].endswith(
        "1 error, 0 warnings, 1 note: failed, fix the errors and check again"
    )


def test_three_findings_of_a_kind_are_shown_and_the_rest_counted(folder: Path) -> None:
    for image in (folder / "train").iterdir():
        image.unlink()
    status, output = check()
    assert status == 1
    assert output.count("no such file") == 3
    assert "… and 1 more" in output


def test_one_split_is_checked_alone(folder: Path) -> None:
    (folder / "train" / "b.png").unlink()
    status, output = check("--split", "validation")
    assert status == 0
    assert "2 rows, 2 images read" in output


def test_tables_fit_a_terminal_of_80_columns(folder: Path) -> None:
    _, output = check()
    assert max(len(line) for line in output.splitlines() if line[:1] in "│┃└") <= 80


def test_names_with_square_brackets_are_shown_as_they_are(folder: Path) -> None:
    (folder / "train" / "[red]x[red].png").write_bytes(b"")
    assert "train/[red]x[red].png: no row refers to this image" in check()[1]


def test_a_report_is_written_where_it_is_asked_for(folder: Path) -> None:
    status, output = check("--report", "out/check")
    assert status == 0
    assert "Report: out/check/index.html" in output
    assert {path.name for path in Path("out/check").iterdir()} == {"index.html", "findings.csv"}


def test_a_folder_without_a_data_set_is_refused_with_status_2(folder: Path) -> None:
    status, output = check("--data", "nowhere")
    assert status == 2
    assert "--data nowhere: no data set here" in output


def test_help_shows_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, boneage_cli.cli.check_data as module; "
        "assert 'boneage check-data --data demo' in module.check_data.__doc__; "
        "heavy = {'torch', 'pandas', 'cv2', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules); "
        "sys.exit(bool(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
