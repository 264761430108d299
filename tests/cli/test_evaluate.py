from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.imaging.perturbations import dicom_bytes
from boneage_cli.imaging.reading import read_radiograph


@pytest.fixture
def evaluate(tmp_path, monkeypatch, demo_bundle):
    """Runs the command in a temporary folder with a copy of the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(demo_bundle.parent, tmp_path / "run")

    def run(line: str, status: int = 0):
        arguments = ["evaluate", "--model", f"run/{demo_bundle.name}", "--device", "cpu"]
        result = CliRunner().invoke(app, [*arguments, *line.split()])
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def data(demo_data, tmp_path) -> Path:
    """A copy of the drawn hands that a test may change."""
    shutil.copytree(demo_data, tmp_path / "hands")
    return tmp_path / "hands"


def test_the_test_split_is_measured_and_written_beside_the_model(evaluate, demo_data):
    result = evaluate(f"--data {demo_data}")
    folder = Path("run/evaluation-test")
    assert {file.name for file in folder.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "scatter.png",
        "bland_altman.png",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_csv(folder / "predictions.csv")
    assert metrics["images"] == len(predictions) == 16
    assert metrics["mae"]["value"] == pytest.approx(predictions["absolute_error"].mean(), abs=1e-3)
    assert metrics["mae"]["low"] < metrics["mae"]["value"] < metrics["mae"]["high"]
    assert f"{metrics['mae']['value']:.2f}" in result.stdout
    bias, rest = (predictions["predicted"] - predictions["true"]).mean(), result.stdout
    assert f"{bias:.2f} " in rest[rest.index("bias (95 %)") :]
    assert f"baseline   {metrics['baseline_mae']:.2f} months" in rest
    for name in ("all", "girls", "boys", "10–15 years", "baseline", str(folder)):
        assert name in result.stdout


def test_the_summary_of_runs_is_told_what_a_run_did_on_the_test_split(
    demo_data, demo_run, tmp_path
):
    def figures() -> pd.Series:
        table = pd.read_csv(demo_run.folder.parent / "summary.csv").set_index("save_dir")
        return table.loc[str(demo_run.folder)]

    before = figures()
    for split in ("validation", "test"):
        line = f"evaluate -m {demo_run.folder} -d {demo_data} --split {split} -o {tmp_path}"
        result = CliRunner().invoke(app, [*line.split(), "--device", "cpu"])
        assert ("test_mae" in result.stdout) == (split == "test")
        assert pd.isna(figures()["test_mae"]) == (split == "validation")
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert figures()["test_mae"] == pytest.approx(measured["mae"]["value"])
    assert figures()["test_rmse"] == pytest.approx(measured["rmse"])
    told = ["test_mae", "test_rmse", "test_images", "test_label_version"]
    assert (figures()["test_images"], figures()["test_label_version"]) == (16, "integer")
    assert figures().drop(told).equals(before.drop(told))
    # Metrics on another data set, a sample or with augmentation are not the run's test metrics.
    shutil.copytree(demo_data, tmp_path / "others")
    row = figures()
    options = ("--sample 6", "--tta", "--precision 32")
    for of in (f"{tmp_path}/others", *(f"{demo_data} {option}" for option in options)):
        line = f"evaluate -m {demo_run.folder} -d {of} --split test -o {tmp_path}/out --device cpu"
        assert "test_mae" not in CliRunner().invoke(app, line.split()).stdout
    assert figures().equals(row)
    # A run is also recognised by its bundle.
    line = f"evaluate -m {demo_run.bundle} -d {demo_data} --split test -o {tmp_path} --device cpu"
    assert "test_mae" in CliRunner().invoke(app, line.split()).stdout


def test_figures_of_another_measurement_stay(evaluate, demo_data, data):
    for line in (f"--data {demo_data}", f"--data {data}", f"--data {demo_data} --tta"):
        for _ in range(2):
            evaluate(f"{line} --split test")
    names = {path.name for path in Path("run").glob("evaluation-*")}
    assert names == {"evaluation-test", "evaluation-hands-test", "evaluation-test-tta"}
    for name, where in (("test", demo_data), ("hands-test", data)):
        figures = json.loads(Path(f"run/evaluation-{name}/metrics.json").read_text())
        assert figures["data"] == str(where)
    # The same model folder, evaluated on another data set of the same name.
    shutil.copytree(data, "more/hands")
    evaluate("--data more/hands --split test")
    assert Path("run/evaluation-hands-test-2/metrics.json").is_file()


def test_figures_of_another_precision_have_a_folder_of_their_own(evaluate, demo_data):
    evaluate(f"--data {demo_data} --split test --precision 32")
    evaluate(f"--data {demo_data} --split test --precision bf16")
    found = {
        path.parent.name: json.loads(path.read_text())["precision"]
        for path in Path("run").glob("evaluation-*/metrics.json")
    }
    assert found == {"evaluation-test": "32", "evaluation-test-2": "bf16"}


def test_a_mean_of_few_radiographs_has_no_interval(evaluate, data):
    table = pd.read_csv(data / "train.csv")
    old = table.index < 19
    table.loc[~old, "boneage"] = 60 + table.index[~old] % 50
    table.loc[old, "boneage"] = 200
    table.to_csv(data / "train.csv", index=False)
    rows = evaluate(f"--data {data} --split train -o out").stdout.splitlines()
    (few, *_), (others, *_) = (
        [row for row in rows if name in row] for name in ("15 years and more", "5–10 years")
    )
    assert " to " in others
    assert " to " not in few


def test_a_train_split_without_ages_gives_no_baseline(evaluate, data):
    table = pd.read_csv(data / "train.csv")
    table.assign(boneage=None).to_csv(data / "train.csv", index=False)
    result = evaluate(f"--data {data} --split test -o out")
    assert "their own mean" in result.stdout
    ages = pd.read_csv(data / "test.csv")["boneage"]
    metrics = json.loads(Path("out/metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["baseline"] == pytest.approx(ages.mean())


def test_a_folder_that_cannot_be_written_is_told_of_before_anything_is_measured(
    evaluate, demo_data
):
    Path("taken").write_text("a file")
    result = evaluate(f"--data {demo_data} --output taken/report", status=2)
    assert "taken is a file" in result.stderr
    assert "MAE" not in result.stdout


def test_a_table_that_evaluate_did_not_write_stays(evaluate, demo_data, tmp_path):
    (tmp_path / "own").mkdir()
    table = tmp_path / "own" / "predictions.csv"
    table.write_text("path,months\na.png,126.5\n")
    result = evaluate(f"--data {demo_data} --split test -o {tmp_path}/own", status=2)
    assert f"{table}: is there already and was not written by this" in result.stderr
    assert table.read_text().startswith("path,months")


def test_the_baseline_is_the_mean_of_the_training_ages(evaluate, demo_data):
    evaluate(f"--data {demo_data} --split validation")
    metrics = json.loads(Path("run/evaluation-validation/metrics.json").read_text())
    mean = pd.read_csv(demo_data / "train.csv")["boneage"].mean()
    ages = pd.read_csv(demo_data / "validation.csv")["boneage"]
    assert metrics["baseline"] == pytest.approx(mean)
    assert metrics["baseline_mae"] == pytest.approx((ages - mean).abs().mean())


def test_the_label_version_of_a_test_split_is_named_and_of_no_other(evaluate, demo_data):
    assert "labels: " in evaluate(f"--data {demo_data} --split test").stdout
    assert json.loads(Path("run/evaluation-test/metrics.json").read_text())["label_version"]
    assert "labels: " not in evaluate(f"--data {demo_data} --split validation").stdout


def test_the_validation_split_is_taken_where_the_test_split_has_no_ages(evaluate, data):
    table = pd.read_csv(data / "test.csv")
    table["boneage"] = None
    table.to_csv(data / "test.csv", index=False)
    evaluate(f"--data {data}")
    assert Path("run/evaluation-hands-validation").is_dir()
    assert "known bone age" in evaluate(f"--data {data} --split test", status=2).stderr


def test_ages_in_years_are_told_of(evaluate, data):
    table = pd.read_csv(data / "test.csv")
    (table.assign(boneage=table["boneage"] / 12)).to_csv(data / "test.csv", index=False)
    assert "look like years" in evaluate(f"--data {data} --split test").stderr


def test_a_radiograph_that_failed_is_named_counted_and_written(evaluate, data):
    table = pd.read_csv(data / "test.csv")
    (data / table["path"][0]).write_bytes(b"not an image")
    result = evaluate(f"--data {data} --output out", status=1)
    assert table["path"][0] in result.stderr
    assert json.loads(Path("out/metrics.json").read_text())["failed"] == 1
    failed = pd.read_csv("out/predictions.csv").iloc[0]
    assert pd.isna(failed["predicted"])
    assert isinstance(failed["error"], str)


def test_evaluate_and_predict_give_the_same_months(evaluate, demo_data, demo_bundle):
    evaluate(f"--data {demo_data} --output out")
    line = f"predict {demo_data}/test.csv --model {demo_bundle} --device cpu --output ages.csv"
    assert CliRunner().invoke(app, line.split()).exit_code == 0
    difference = pd.read_csv("ages.csv")["months"] - pd.read_csv("out/predictions.csv")["predicted"]
    assert difference.abs().max() < 1e-3


def test_training_and_evaluate_agree_on_the_validation_split(evaluate, demo_data, demo_run):
    evaluate(f"--data {demo_data} --split validation --precision 32 --output out")
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["mae"]["value"] == pytest.approx(demo_run.evaluation.mae.value, abs=1e-3)


def test_a_run_is_told_to_be_measured_on_what_it_was_trained_on(evaluate, demo_data):
    told = " ".join(evaluate(f"--data {demo_data} --split train").stderr.split())
    assert "64 of these radiographs were trained on" in told
    for split in ("validation", "test"):
        assert "trained on" not in evaluate(f"--data {demo_data} --split {split}").stderr


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "scatter.png", "stress.csv"])
def test_a_file_that_cannot_be_written_is_told_with_the_way_out(evaluate, demo_data, name) -> None:
    # A folder in its place.
    Path("out", name).mkdir(parents=True)
    options = "--stress --sample 4" if name == "stress.csv" else "--sample 4"
    result = evaluate(f"--data {demo_data} --split test {options} --output out", status=2)
    assert "out: cannot be written (Is a directory); choose another --output" in result.stderr


def test_the_same_measurement_by_another_path_keeps_its_stress_test(evaluate, demo_data) -> None:
    evaluate(f"--data {demo_data} --split test --sample 4 --stress --output out")
    evaluate(f"--data {os.path.relpath(demo_data)} --split test --sample 4 --output out")
    assert Path("out/stress.json").is_file()
    evaluate(f"--data {demo_data} --split test --sample 5 --output out")
    assert not Path("out/stress.json").exists()


def test_a_model_without_its_run_folder_knows_what_it_was_trained_on(evaluate, demo_data) -> None:
    shutil.move("run", "moved")
    Path("alone").mkdir()
    shutil.copy("moved/best.safetensors", "alone/model.safetensors")
    line = f"evaluate -m alone/model.safetensors -d {demo_data} --split train --device cpu"
    told = CliRunner().invoke(app, line.split())
    assert "64 of these radiographs were trained on" in " ".join(told.stderr.split())


def test_several_models_write_to_the_current_folder(evaluate, demo_data, demo_bundle):
    evaluate(f"--model {demo_bundle} --data {demo_data} --split test")
    assert Path("evaluation-demo-test/metrics.json").is_file()


def test_stress_shows_what_is_lost_when_the_same_radiographs_come_in_other_ways(
    evaluate, demo_data
):
    result = evaluate(f"--data {demo_data} --split test --stress --sample 6")
    folder = Path("run/evaluation-test-6")
    assert {"stress.csv", "stress.json", "stress.png"} < {file.name for file in folder.iterdir()}
    metrics = json.loads((folder / "metrics.json").read_text())
    figures = json.loads((folder / "stress.json").read_text())
    table = pd.read_csv(folder / "stress.csv").set_index("name")
    assert figures["split"] == "test"
    assert figures["chosen_of"] == 16
    assert (table["images"] == metrics["images"]).all()
    assert table["mae"]["unperturbed"] == pytest.approx(metrics["mae"]["value"], abs=1e-3)
    assert table["mae_increase"]["DICOM, inverted"] == pytest.approx(0, abs=1e-3)
    assert table["change"]["PNG, inverted"] > 0
    # Drawn hands are only 320 pixels high.
    assert "6 of 6 images: 512 pixels high" in result.stdout
    shown = table[table["unchanged"] < table["images"]]
    assert len(shown) > 25
    lines = result.stdout.split("The same radiographs")[1].splitlines()
    cells = [[cell.strip() for cell in line.split("│")] for line in lines]
    printed = {row[1]: float(row[2]) for row in cells if len(row) == 8 and row[1]}
    assert printed.keys() == {"unperturbed", *shown.index}
    for name, figure in printed.items():
        assert figure == pytest.approx(table["mae"][name], abs=0.006)
    for promise in ("increase (95 %)", str(folder), "stress.json, stress.csv, stress.png"):
        assert promise in result.stdout


def test_stress_leaves_the_other_figures_as_they_are(evaluate, demo_data):
    evaluate(f"--data {demo_data} --sample 2 --output plain")
    evaluate(f"--data {demo_data} --sample 2 --output stressed --stress")
    for name in ("metrics.json", "predictions.csv"):
        assert Path("plain", name).read_text() == Path("stressed", name).read_text()
    assert not list(Path("plain").glob("stress*"))
    # They stay beside the same figures, and not beside others.
    for line, left in (("--sample 2", 3), ("--sample 2 --tta", 0)):
        evaluate(f"--data {demo_data} {line} --output stressed")
        assert len(list(Path("stressed").glob("stress.*"))) == left


def test_stress_goes_on_without_a_radiograph_that_failed(evaluate, data):
    table = pd.read_csv(data / "test.csv").head(3)
    table.to_csv(data / "test.csv", index=False)
    (data / table["path"][0]).write_bytes(b"not an image")
    result = evaluate(f"--data {data} --output out --stress", status=1)
    assert result.stderr.count(table["path"][0]) == 1
    assert (pd.read_csv("out/stress.csv")["images"] == 2).all()


def test_so_many_images_are_chosen_by_sex_and_the_same_each_time(evaluate, data):
    # Sorted by sex, so that eight consecutive rows would be of one sex.
    table = pd.read_csv(data / "test.csv").sort_values("male", kind="stable")
    table.to_csv(data / "test.csv", index=False)
    assert table["male"].nunique() == 2
    chosen = []
    for name in ("first", "again"):
        evaluate(f"--data {data} --split test --sample 8 --output {name}")
        chosen.append(pd.read_csv(f"{name}/predictions.csv"))
    pd.testing.assert_frame_equal(*chosen)
    assert len(chosen[0]) == 8
    girls = table["male"].eq(False).mean()
    assert abs((chosen[0]["sex"] == "F").mean() - girls) <= 1 / 8


def test_more_images_than_there_are_known_ages_are_refused(evaluate, data):
    table = pd.read_csv(data / "test.csv")
    table.loc[0, "boneage"] = None
    table.to_csv(data / "test.csv", index=False)
    assert "the split has 15" in evaluate(f"--data {data} --sample 16", status=2).stderr


def test_a_split_that_is_not_there_is_refused(evaluate, data):
    (data / "test.csv").unlink()
    assert "test.csv" in evaluate(f"--data {data} --split test", status=2).stderr


def test_the_help_is_a_short_manual_with_examples():
    result = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "100"})
    text = " ".join(result.stdout.split())
    for promise in (
        "boneage evaluate --data rsna",
        "95 % bootstrap",
        "metrics.json",
        "--stress --sample 200",
        "Exit status",
    ):
        assert promise in text


def as_blank(path: Path) -> None:
    cv2.imwrite(str(path), np.full((320, 256), 90, np.uint8))


def test_what_predict_would_refuse_is_counted_and_told(evaluate, data):
    as_blank(data / pd.read_csv(data / "test.csv")["path"][3])
    result = evaluate(f"--data {data} --split test --output out")
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert metrics["refused"] == {"no-hand": 1}
    assert metrics["images"] == 16
    assert re.search(r"refused +by predict, but included.*: 1 no-hand", result.stdout)
    evaluate(f"--data {data} --split validation --output plain")
    assert not json.loads(Path("plain/metrics.json").read_text())["refused"]


def test_the_sex_that_only_a_dicom_file_tells_is_in_the_figures(evaluate, data):
    table = pd.read_csv(data / "test.csv").head(6)
    known = table["male"].to_numpy(bool)
    for path, male in zip(table["path"], known, strict=True):
        file = dcmread(io.BytesIO(dicom_bytes(read_radiograph(data / path))))
        file.PatientSex = "M" if male else "F"
        file.save_as((data / path).with_suffix(".dcm"), enforce_file_format=True)
    table["path"] = table["path"].str.replace(".png", ".dcm")
    table.assign(male=None).to_csv(data / "test.csv", index=False)
    evaluate(f"--data {data} --split test --output out")
    by_sex = json.loads(Path("out/metrics.json").read_text())["by_sex"]
    counts = {"girls": (~known).sum(), "boys": known.sum()}
    assert {name: each["images"] for name, each in by_sex.items()} == {
        name: count for name, count in counts.items() if count
    }
    told = pd.read_csv("out/predictions.csv")["sex"]
    assert told.tolist() == ["M" if male else "F" for male in known]


def test_stress_takes_the_views_that_the_other_figures_took(evaluate, demo_data):
    evaluate(f"--data {demo_data} --sample 2 --output out --stress --tta")
    evaluate(f"--data {demo_data} --sample 2 --output plain")
    table = pd.read_csv("out/stress.csv").set_index("name")
    with_views, without = (
        json.loads(Path(folder, "metrics.json").read_text())["mae"]["value"]
        for folder in ("out", "plain")
    )
    assert with_views != pytest.approx(without, abs=0.01)
    assert table["mae"]["unperturbed"] == pytest.approx(with_views, abs=1e-3)


def test_the_status_is_1_where_only_a_changed_copy_could_not_be_predicted(evaluate, data):
    table = pd.read_csv(data / "test.csv").head(2)
    # An image too wide for JPEG and DICOM, but not for PNG.
    cv2.imwrite(str(data / table["path"][0]), np.zeros((4, 66_000), np.uint8))
    table.to_csv(data / "test.csv", index=False)
    result = evaluate(f"--data {data} --split test --output out --stress", status=1)
    assert json.loads(Path("out/metrics.json").read_text())["failed"] == 0
    failed = pd.read_csv("out/stress.csv").set_index("name")["failed"]
    assert set(failed[failed > 0].index) == {"JPEG", "DICOM", "DICOM, inverted"}
    told = " ".join(result.stderr.split())
    assert "DICOM: 1 radiograph failed; the first:" in told
    assert "66000 × 4 pixels are more than a DICOM file holds" in told
