"""Tests of ``boneage sweep``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment, write_experiment
from boneage_cli.locks import only_process


@pytest.fixture
def sweep(tmp_path: Path, tiny: Experiment, demo_data: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command in a temporary folder with the tiny network's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    settings = tiny.training.model_copy(update={"epochs": 1})
    write_experiment(tiny.model_copy(update={"training": settings}), Path("tiny.toml"))

    def run(line: str, status: int = 0) -> Result:
        data = [] if "--data" in line else ["--data", str(demo_data)]
        words = ["sweep", "-c", "tiny.toml", *data, *line.split()]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == status, result.output
        return result

    return run


def test_every_combination_is_trained_and_ranked_by_its_mae(sweep) -> None:
    result = sweep("--vary training.loss=mae,huber --vary model.gender=true,false -o out")
    names = {f"tiny-{loss}-gender-{sex}" for loss in ("mae", "huber") for sex in ("true", "false")}
    table = pd.read_csv("out/table.csv")
    assert set(table["run"]) == names
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["validation_mae"].is_monotonic_increasing
    assert (table["validation_mae_low"] < table["validation_mae"]).all()
    assert (table["validation_mae"] < table["validation_mae_high"]).all()
    for row in table.itertuples():
        settings = load_experiment(Path("out") / row.run / "settings.toml")
        assert settings.training.loss in row.run
        assert settings.model.gender == ("gender-true" in row.run)
        made = json.loads((Path("out") / row.run / "result.json").read_text())
        assert made["validation_mae"]["value"] == pytest.approx(row.validation_mae)
        assert made["parameters"] == row.parameters
        assert f"{row.validation_mae:.2f}" in result.stdout
    first, *others = (
        pd.read_csv(Path("out", name, "validation", "predictions.csv"))["absolute_error"]
        for name in ("tiny-mae-gender-true", "tiny-huber-gender-false")
    )
    differences = table.set_index("run")[["against_first", "against_first_low"]]
    assert differences.loc["tiny-mae-gender-true"].isna().all()
    found, low = differences.loc["tiny-huber-gender-false"]
    assert found == pytest.approx((others[0] - first).mean(), abs=1e-3)
    assert low < found
    assert f"{found:+.2f} (" in Path("out/table.md").read_text()
    lines = Path("out/table.md").read_text().splitlines()
    assert len(lines) == 6
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_one_at_a_time_the_recipe_is_followed_by_each_single_change_of_it(sweep) -> None:
    line = (
        "--one-at-a-time --set training.warmup_epochs=0.5 --vary model.gender=true,false "
        "--vary training.loss=mae,huber --vary augmentation.rotate=0,15.0,30"
    )
    first = sweep(line)
    folder = Path("runs/sweep-tiny-one-at-a-time")
    table = pd.read_csv(folder / "table.csv").set_index("run")
    recipe = load_experiment(folder / "tiny" / "settings.toml")
    assert recipe.training.warmup_epochs == 0.5
    changed = {
        "tiny-gender-false": ("model", "gender", False),
        "tiny-loss-huber": ("training", "loss", "huber"),
        "tiny-rotate-0": ("augmentation", "rotate", 0),
        "tiny-rotate-30": ("augmentation", "rotate", 30),
    }
    assert set(table.index) == {"tiny", *changed}
    assert "1 of 5: tiny\n" in first.stdout
    for name, (section, key, value) in changed.items():
        own = getattr(recipe, section).model_copy(update={key: value})
        expected = recipe.model_copy(update={"name": name, section: own})
        assert load_experiment(folder / name / "settings.toml") == expected
        assert table.loc[name, f"{section}.{key}"] == value
    assert table.loc["tiny-rotate-0", "training.loss"] == "mae"
    # All differences are from the recipe.
    assert table.index[table["against_first"].isna()].tolist() == ["tiny"]
    errors = {
        name: pd.read_csv(folder / name / "validation" / "predictions.csv")["absolute_error"]
        for name in table.index
    }
    for name in changed:
        expected = (errors[name] - errors["tiny"]).mean()
        assert table.loc[name, "against_first"] == pytest.approx(expected, abs=1e-3)

    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/best.safetensors")}
    again = sweep(f"{line} -b small_cnn,resnet10t --vary preprocessing.height=64,72")
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert again.stdout.count("epoch   1") == 2
    table = pd.read_csv(folder / "table.csv").set_index("run")
    assert set(table.index) == {"tiny", *changed, "tiny-backbone-resnet10t", "tiny-height-72"}


def test_one_at_a_time_equal_values_of_two_settings_have_different_names(sweep) -> None:
    sweep(
        "--one-at-a-time -o out --vary model.activation=elu --vary model.branch_activation=elu "
        "--vary preprocessing.height=72 --vary regions.height=72"
    )
    changes = {"activation-elu", "branch_activation-elu"}
    changes |= {"preprocessing.height-72", "regions.height-72"}
    assert {path.parent.name for path in Path("out").glob("*/best.safetensors")} == {
        "tiny",
        *(f"tiny-{change}" for change in changes),
    }


def test_a_narrow_terminal_shows_whole_names_and_figures(sweep, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = sweep(
        "--vary training.loss=mae,huber --vary training.label_noise=0.25 --vary model.dropout=0.1 "
        "-o out"
    )
    lines = result.stdout.splitlines()
    assert max(map(len, lines[lines.index("Sweep, best first") :])) <= 80
    rows = [line.split("│")[1:4] for line in lines if line.startswith("│")]
    table = pd.read_csv("out/table.csv").set_index("run")
    parts = [name.strip() for name, *_ in rows]
    assert len(parts) > len(table)
    assert "".join(parts) == "".join(table.index)
    assert all(part.endswith(("-", "_", "-0.1")) for part in parts), "broken between words"
    for run, row in table.iterrows():
        mae, low, high = row[["validation_mae", "validation_mae_low", "validation_mae_high"]]
        assert f"{mae:.2f} ({low:.2f} to {high:.2f})" in [figure.strip() for _, figure, _ in rows]
        assert f"| {run} | " in Path("out/table.md").read_text()
    assert "Not shown for lack of width: weights, training, epoch kept" in lines


def test_a_second_time_nothing_is_trained_again_and_new_values_join(sweep) -> None:
    sweep("--vary training.loss=mae,huber -o out")
    made = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/best.safetensors")}
    again = sweep("--vary training.loss=mae,huber,mse -o out")
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert len(pd.read_csv("out/table.csv")) == 3
    assert again.stdout.count("epoch   1") == 1


def test_one_that_fails_does_not_stop_the_others(sweep) -> None:
    result = sweep("-b small_cnn --vary model.weights=gone.safetensors,none -o out", status=1)
    table = pd.read_csv("out/table.csv").set_index("run")
    assert table.loc["tiny-small_cnn-none", "rank"] == 1
    assert "gone.safetensors" in table.loc["tiny-small_cnn-gone.safetensors", "error"]
    assert "tiny-small_cnn-gone.safetensors: " in result.stderr
    assert "Traceback" not in result.output


def test_each_combination_can_be_cross_validated(sweep) -> None:
    sweep("--vary training.loss=mae,huber --folds 2 -o out")
    table = pd.read_csv("out/table.csv")
    assert (table["validation_images"] == 80).all()
    assert len(list(Path("out").glob("*/fold-2/best.safetensors"))) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--vary training.los=mae,mse", "did you mean training.loss?"),
        ("--vary training.loss=mae,no_such", "no_such"),
        ("--vary training.loss", "section.key=value,value"),
        ("--vary training.loss=mae --vary training.loss=mse", "named twice"),
        ("--vary training.loss=mae,mae", "--vary training.loss: mae is named twice"),
        ("-b small_cnn,no_such_net", "no_such_net"),
        ("--vary training.loss=mae,mse --set training.loss=mae", "also given to --vary"),
        ("-c tiny.toml", "twice in this sweep"),
        ("--set training.epochs=1", "nothing to compare: name what varies with --vary"),
        ("--vary training.loss=mae,mse --devices 2", "sweep: trains on one device"),
        ("--one-at-a-time", "name what changes with --vary or --backbones"),
        ("--one-at-a-time --vary training.loss=mae", "only has the recipe's own value"),
        ("--one-at-a-time --vary training.loss=mse -c tiny.toml", "name one --config"),
        ("--one-at-a-time --vary training.los=mse", "did you mean training.loss?"),
        ("--one-at-a-time -b no_such_net", "no_such_net"),
        (
            "--one-at-a-time --vary training.loss=mse --set training.loss=huber",
            "also given to --vary",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(
    sweep, line: str, reason: str
) -> None:
    result = sweep(f"{line} -o out", status=2)
    assert reason in result.stderr
    assert not Path("out").exists()


def test_other_settings_do_not_overwrite_an_earlier_sweep(sweep) -> None:
    sweep("--vary training.loss=mae,huber -o out")
    table = Path("out/table.csv").read_bytes()
    result = sweep("--vary training.loss=mae,huber --set training.seed=7 -o out", status=2)
    assert "out/tiny-mae: holds a run of other settings" in result.stderr
    assert Path("out/table.csv").read_bytes() == table
    assert load_experiment(Path("out/tiny-mae/settings.toml")).training.seed == 42


def test_nothing_is_trained_beside_one_earlier_run_of_other_settings(sweep) -> None:
    sweep("--vary training.loss=huber -o out")
    result = sweep("--vary training.loss=mae,huber --set training.seed=7 -o out", status=2)
    assert "out/tiny-huber: holds a run of other settings" in result.stderr
    assert not Path("out/tiny-mae").exists()


def test_a_cross_validation_and_single_runs_do_not_share_a_folder(sweep) -> None:
    sweep("-b small_cnn --folds 2 -o out")
    result = sweep("-b small_cnn -o out", status=2)
    assert "choose another folder" in result.stderr


def test_a_folder_that_cannot_be_made_is_told_of_in_one_line(sweep) -> None:
    Path("file").write_text("")
    result = sweep("-b small_cnn -o file/out", status=2)
    assert "file/out: cannot be written" in result.stderr


def test_sweeps_of_different_settings_have_different_folders(sweep) -> None:
    settings = Path("tiny.toml").read_text().replace('"tiny"', '"tiny-other"')
    Path("tiny.toml").write_text(settings)
    sweep("-b small_cnn")
    assert Path("runs/sweep-tiny-other-backbone/table.csv").exists()


def test_a_sweep_does_not_replace_the_table_of_another(sweep) -> None:
    sweep("--vary training.loss=mae,huber -o out")
    table = Path("out/table.csv").read_text()
    result = sweep("--vary training.seed=1,2 -o out", status=2)
    assert "holds the table of another sweep (with tiny-huber)" in result.stderr
    assert Path("out/table.csv").read_text() == table


def test_a_sweep_is_trained_by_one_process(sweep) -> None:
    Path("out").mkdir()
    with only_process(Path("out"), "busy"):
        result = sweep("--vary training.loss=mae,huber -o out", status=2)
    assert "out: another process is training this sweep; wait for that" in result.stderr
    assert not Path("out/tiny-mae").exists()


def test_a_sweep_does_not_replace_a_table_that_no_sweep_wrote(sweep) -> None:
    Path("out").mkdir()
    Path("out/table.csv").write_text("id,notes\n1,precious\n")
    result = sweep("--vary training.loss=mae,huber -o out", status=2)
    assert "out/table.csv: not a table of this version of sweep" in result.stderr
    assert Path("out/table.csv").read_text() == "id,notes\n1,precious\n"
    assert not Path("out/tiny-mae").exists()


def test_the_runs_of_a_sweep_can_be_compared_by_the_name_of_its_folder(sweep) -> None:
    sweep("--vary training.loss=mae,huber,mse -o out")
    sweep("--vary training.seed=7 -o other")

    def compared(*models: str) -> pd.DataFrame:
        result = CliRunner().invoke(app, ["compare", *models, "-o", "table.csv"])
        assert result.exit_code == 0, result.output
        return pd.read_csv("table.csv")

    runs = [f"out/tiny-{loss}" for loss in ("mae", "huber", "mse")]
    table = compared("out")
    pd.testing.assert_frame_equal(table, compared(*runs))
    assert table["model"].drop_duplicates().tolist() == runs
    swept = pd.read_csv("out/table.csv").set_index("run")["against_first"]
    for row in table[table["group"] == "all"][1:].itertuples():
        assert row.against_first == pytest.approx(swept[Path(row.model).name])
    other = "other/tiny-seed-7"
    assert compared(other, "out")["model"].drop_duplicates().tolist() == [other, *runs]
    both = compared(f"{other},{runs[0]}", "out")
    assert both["model"].drop_duplicates().tolist() == [f"{other}, {runs[0]}", *runs]

    # As the shell names them for out/*.
    everything = sorted(map(str, Path("out").glob("[!.]*")))
    assert {"out/table.csv", "out/table.md", "out/summary.csv"} <= {*everything}
    assert {*compared(*everything)["model"]} == {*runs}

    Path("out/tiny-mae/validation/predictions.csv").unlink()
    result = CliRunner().invoke(app, ["compare", *runs])
    assert "boneage train --resume out/tiny-mae" in " ".join(result.stderr.split())

    result = CliRunner().invoke(app, ["compare", f"{other},out", "out"])
    assert result.exit_code == 2
    assert "out: is a sweep, whose runs are different models" in " ".join(result.stderr.split())


def test_failed_runs_of_a_sweep_are_left_out_of_a_comparison(sweep) -> None:
    sweep("-b small_cnn --vary model.weights=gone.safetensors,none,also.safetensors -o a", status=1)
    result = CliRunner().invoke(app, ["compare", "a", "a/tiny-small_cnn-none"])
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "a/tiny-small_cnn-gone.safetensors: left out: " in told
    assert "a/tiny-small_cnn-also.safetensors: left out: " in told
    assert "name two models" in CliRunner().invoke(app, ["compare", "a"]).stderr
    sweep("-b small_cnn --vary model.weights=gone.safetensors -o b", status=1)
    assert "no run of this sweep" in CliRunner().invoke(app, ["compare", "b"]).stderr


def test_a_radiograph_that_is_in_a_data_set_twice_is_compared_all_the_same(
    sweep, own_data: Path
) -> None:
    table = pd.read_csv(own_data / "validation.csv", dtype=str)
    pd.concat([table, table[:1]]).to_csv(own_data / "validation.csv", index=False)
    result = sweep(f"-o out --folds 2 --vary training.seed=1,2 --data {own_data}")
    table = pd.read_csv("out/table.csv")
    assert len(table) == 2
    assert "failed" not in result.stdout
    assert table["against_first"].notna().sum() == 1


def test_what_was_trained_before_an_age_changed_is_not_ranked_with_what_is_trained_now(
    sweep, own_data: Path
) -> None:
    sweep(f"--vary training.loss=mae --data {own_data} -o out")
    table = pd.read_csv(own_data / "train.csv")
    table.loc[0, "boneage"] += 1
    table.to_csv(own_data / "train.csv", index=False)
    again = sweep(f"--vary training.loss=mae,huber --data {own_data} -o out", status=1)
    assert "changed since tiny-mae began" in " ".join(again.stderr.split())
    table = pd.read_csv("out/table.csv").set_index("run")
    assert table.loc["tiny-huber", "rank"] == 1
    assert "changed since" in table.loc["tiny-mae", "error"]
    # The run that the first left there is of other ages.
    assert pd.isna(table.loc["tiny-huber", "against_first"])
