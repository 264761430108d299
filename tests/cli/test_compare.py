"""Tests of ``boneage compare``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from boneage_cli.cli.app import app
from boneage_cli.core.evaluation.metrics import mean_interval


def run(*words: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["compare", *map(str, words)], env={"COLUMNS": "150"})
    assert result.exit_code == status, result.output
    return result


def predictions(folder: Path, errors: np.ndarray, ages: np.ndarray, ids: range) -> Path:
    """Writes a folder of predictions in the format of ``boneage evaluate``."""
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "image_id": [str(number) for number in ids],
            "true": ages,
            "predicted": ages + errors,
            "absolute_error": np.abs(errors),
            "sex": ["F" if number % 2 else "M" for number in ids],
            "error": None,
        }
    )
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three models: the second errs by a month more than the first; the third has fewer images."""
    random = np.random.default_rng(0)
    ages, errors = random.uniform(10, 220, 80).round(), random.normal(0, 8, 80)
    worse = errors + np.sign(errors) * random.uniform(0.5, 1.5, 80)
    return [
        predictions(tmp_path / "a", errors, ages, range(80)),
        predictions(tmp_path / "b", worse, ages, range(80)),
        predictions(tmp_path / "c", errors[:60], ages[:60], range(60)),
    ]


def test_a_paired_difference_shows_what_the_intervals_of_both_do_not(three, tmp_path):
    result = run(three[0], three[1], "--output", tmp_path / "ab.csv")
    table = pd.read_csv(tmp_path / "ab.csv")
    first, second = (
        table[(table["model"] == str(path)) & (table["group"] == "all")] for path in three[:2]
    )
    assert first["error_high"].item() > second["error_low"].item()
    assert second["against_first_low"].item() > 0.5
    own, other = (pd.read_csv(path / "predictions.csv")["absolute_error"] for path in three[:2])
    expected = mean_interval((other - own).to_numpy())
    assert second["against_first"].item() == pytest.approx(expected.value)
    text = f"+{expected.value:.2f} (+{expected.low:.2f} to +{expected.high:.2f})"
    assert text in result.stdout
    for group in ("girls", "boys", "0–5 years"):
        assert group in result.stdout
        assert (table["group"] == group).any()


def test_the_table_is_written_even_if_the_output_is_not_read(three, tmp_path) -> None:
    table = tmp_path / "table.csv"
    words = ["compare", *map(str, three), "--output", str(table)]
    with subprocess.Popen(
        [sys.executable, "-m", "boneage_cli", *words],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141
    assert {*pd.read_csv(table)["model"]} == {*map(str, three)}


def test_an_interval_of_hardly_any_radiographs_is_not_shown(three, tmp_path) -> None:
    few = pd.read_csv(three[0] / "predictions.csv").head(3)
    few.assign(predicted=few["predicted"] + 1, absolute_error=few["absolute_error"] + 1).to_csv(
        tmp_path / "few.csv", index=False
    )
    told = run(three[0], tmp_path / "few.csv").stdout
    assert "the same 3 radiographs" in told
    assert "+1.00 " in told
    assert " to " not in told.partition("Against")[0].partition("the same")[2]


def test_only_an_earlier_comparison_is_replaced(three, tmp_path):
    table = tmp_path / "ab.csv"
    run(three[0], three[1], "--output", table)
    run(three[0], three[2], "--output", table)
    assert pd.read_csv(table)["model"].iloc[-1] == str(three[2])
    image = tmp_path / "4360.png"
    image.write_bytes(b"\x89PNG\0")
    for precious in (three[1] / "predictions.csv", image):
        before = precious.read_bytes()
        refused = run(three[0], three[1], "--output", precious, status=2)
        assert f"--output {precious}: is " in " ".join(refused.stderr.split())
        assert precious.read_bytes() == before


def test_several_trainings_of_a_model_are_averaged_and_their_spread_is_told(three):
    result = run(f"{three[0]},{three[1]}", three[0])
    means = [pd.read_csv(path / "predictions.csv")["absolute_error"].mean() for path in three[:2]]
    assert f"{np.mean(means):.2f} (" in result.stdout
    assert f" {np.std(means, ddof=1):.2f} " in result.stdout


def test_a_narrow_terminal_shows_whole_figures_of_many_models(three, tmp_path, monkeypatch):
    table = pd.read_csv(three[1] / "predictions.csv")
    changes = ["background_removed-true", "registered_hand-false", "head-distribution"]
    runs = [tmp_path / "sweep" / f"ablation-{change}" for change in ["", *changes]]
    for number, path in enumerate(runs):
        path.mkdir(parents=True)
        error = table["absolute_error"] * (1 + number / 4)
        table.assign(absolute_error=error).to_csv(path / "predictions.csv", index=False)
    monkeypatch.setenv("COLUMNS", "80")
    words = ["compare", *map(str, runs), "-o", str(tmp_path / "table.csv")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert all(len(line) <= 80 for line in lines if "│" in line)
    shown = {(row[1], row[3]) for row in rows if len(row) == 4}
    for row in pd.read_csv(tmp_path / "table.csv").itertuples():
        if row.group != "all":
            low, high = row.against_first_low, row.against_first_high
            interval = f" ({low:+.2f} to {high:+.2f})" if row.images >= 20 else ""
            assert (row.group, f"{row.against_first:+.2f}{interval}") in shown
    names = {row[0] for row in rows if len(row) == 4}
    assert {"ablation-background_", "removed-true", "ablation-head-"} <= names


def test_models_are_compared_on_what_all_have_predicted(three):
    result = run(*three)
    assert "the same 60 radiographs" in result.stdout
    assert "60 radiographs that all have predicted, of up to 80" in " ".join(result.stderr.split())
    assert "0.00 (0.00 to 0.00)" in result.stdout.replace("+", "")


def test_a_run_stands_for_its_validation_split(demo_run, demo_data, tmp_path):
    evaluated = CliRunner().invoke(
        app,
        [
            *("evaluate", "--model", str(demo_run.folder), "--data", str(demo_data)),
            *("--split", "validation", "--precision", "32", "--device", "cpu"),
            *("--output", str(tmp_path / "evaluation")),
        ],
    )
    assert evaluated.exit_code == 0, evaluated.output
    result = run(demo_run.folder, tmp_path / "evaluation")
    mae = pd.read_csv(demo_run.folder / "validation" / "predictions.csv")["absolute_error"].mean()
    assert result.stdout.count(f" {mae:.2f} ") == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(image_id="x" + table["image_id"]), "no radiograph in common"),
        (lambda table: table.assign(true=table["true"] + 3), "has different known ages"),
        (lambda table: table[["image_id"]], "not a table of predictions"),
        # Two tables joined, with the headings of the second among the rows.
        (
            lambda table: pd.concat([table, table.columns.to_frame().T]),
            "not a table of predictions",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(three, change, said):
    file = three[1] / "predictions.csv"
    change(pd.read_csv(file, dtype={"image_id": str})).to_csv(file, index=False)
    assert said in run(three[0], three[1], status=2).stderr


def test_one_model_and_a_folder_without_predictions_are_told(three, tmp_path):
    assert "name two models" in run(three[0], status=2).stderr
    assert "no predictions.csv there" in run(three[0], tmp_path, status=2).stderr


def test_models_of_the_sex_are_compared_by_the_share_of_wrong_ones_in_per_cent(tmp_path: Path):
    for name, wrong in (("a", 8), ("b", 10)):
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"image_id": range(40), "sex": ["F", "M"] * 20, "boneage": 100.0})
        other = table["sex"].map({"F": "M", "M": "F"})
        predicted = table["sex"].where(table.index >= wrong, other)
        table = table.assign(predicted_sex=predicted, male_probability=0.5, error=None)
        table.to_csv(tmp_path / name / "sex_predictions.csv", index=False)
    printed = run(tmp_path / "a", tmp_path / "b").stdout
    assert "wrong sexes, %" in printed
    assert "20.00" in printed
    assert "25.00" in printed
