"""Tests of models that predict sex, alone or together with age."""

from __future__ import annotations

import csv
import io
import json
import shutil
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import averaged, load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation.measuring import measure
from boneage_cli.core.evaluation.metrics import share_interval
from boneage_cli.core.evaluation.sexes import compute_sex_metrics, evaluate_sexes
from boneage_cli.core.experiment_file import write_experiment
from boneage_cli.core.explanation.pictures import Explainer
from boneage_cli.core.exporting import TOLERANCES, export_model
from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.output import text_lines
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.folds import cross_validate
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.processes import ENOUGH_FOR_PROCESSES


@pytest.fixture(scope="module")
def marked(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn hands; boys' have a white right half, so that any network learns the sex."""
    folder = tmp_path_factory.mktemp("marked") / "marked"
    shutil.copytree(demo_data, folder, ignore=shutil.ignore_patterns(".cache"))
    for split in ("train", "validation", "test"):
        for row in read_manifest(folder, split).itertuples():
            if row.male:
                pixels = cv2.imread(row.path, cv2.IMREAD_GRAYSCALE)
                pixels[:, pixels.shape[1] // 2 :] = 255
                cv2.imwrite(row.path, pixels)
    return folder


def of(tiny: Experiment, *targets: str) -> Experiment:
    model = tiny.model.model_copy(update={"targets": targets, "gender": False})
    training = tiny.training.model_copy(update={"epochs": 4})
    augmentation = tiny.augmentation.model_copy(update={"flip": 0})
    return tiny.model_copy(
        update={"model": model, "training": training, "augmentation": augmentation}
    )


@pytest.fixture(scope="module")
def sex_run(marked: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(of(tiny, "sex"), marked, runs=tmp_path_factory.mktemp("sex"))


@pytest.fixture(scope="module")
def both_run(marked: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(of(tiny, "age", "sex"), marked, runs=tmp_path_factory.mktemp("both"))


def boneage(line: str, status: int = 0) -> Any:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == status, result.output
    return result


def copied(data: Path, place: Path) -> Path:
    """Copies a data set, so that a test may change it."""
    return shutil.copytree(data, place / "copied", ignore=shutil.ignore_patterns(".cache"))


def own(run: Run, place: Path) -> Path:
    """Copies a run's folder and the table of all runs."""
    folder = shutil.copytree(run.folder, place / "runs" / "mine")
    summary = (run.folder.parent / "summary.csv").read_text()
    (folder.parent / "summary.csv").write_text(summary.replace(str(run.folder), str(folder)))
    return folder


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predict_tells_the_sex_and_how_likely_it_is(sex_run: Run, marked: Path) -> None:
    manifest = read_manifest(marked, "test")
    lines = boneage(f"predict {marked}/test --model {sex_run.bundle}").stdout.splitlines()
    found = table(boneage(f"predict {marked}/test.csv -m {sex_run.bundle} -f csv").stdout)
    assert len(lines) == len(found) == len(manifest)
    for line, row, known in zip(lines, found, manifest.itertuples(), strict=True):
        male = float(row["male_probability"])
        assert row["predicted_sex"] == ("M" if male > 0.5 else "F")
        # The table's own sex is kept next to the predicted one.
        assert row["sex"] == ("M" if known.male else "F")
        assert (row["months"], row["years_months"], row["error"]) == ("", "", "")
        name = "boy" if male > 0.5 else "girl"
        assert line.startswith(f"{known.path}: {name} (probability ")
        assert float(line.rsplit(" ", 1)[1].rstrip(")")) == pytest.approx(
            max(male, 1 - male), abs=6e-4
        )
    right = sum(row["predicted_sex"] == row["sex"] for row in found)
    assert right >= len(found) - 1


def test_a_model_of_both_tells_both_in_one_line(both_run: Run, marked: Path) -> None:
    line = boneage(f"predict {marked}/test -m {both_run.bundle}").stdout.splitlines()[0]
    age, sex = line.split(": ")[1].split(", ")
    assert age.endswith("months)")
    assert sex.startswith(("boy (probability ", "girl (probability "))


def test_models_of_age_and_of_sex_answer_together(
    sex_run: Run, both_run: Run, demo_bundle: Path, marked: Path
) -> None:
    manifest = read_manifest(marked, "test").head(4)
    cases = [Case(row.path, male=row.male) for row in manifest.itertuples()]

    def answers(*models: Path) -> list[Prediction]:
        return list(Predictor.load(models, "cpu").predict_files(cases, force=True))

    ages, sexes, both = answers(demo_bundle), answers(sex_run.bundle), answers(both_run.bundle)
    together = answers(demo_bundle, sex_run.bundle, both_run.bundle)
    for age, sex, two, found in zip(ages, sexes, both, together, strict=True):
        assert age.male_probability is None
        assert sex.months is None
        assert None not in (age.months, two.months, two.male_probability, sex.male_probability)
        assert found.months == pytest.approx((age.months + two.months) / 2, abs=1e-3)
        assert found.male_probability == pytest.approx(
            (sex.male_probability + two.male_probability) / 2, abs=1e-6
        )


def test_views_are_averaged_in_the_probability_as_in_the_age(both_run: Run, marked: Path) -> None:
    line = f"predict {marked}/test -m {both_run.bundle} -f json --device cpu"
    plain, averaged_views = (json.loads(boneage(line + more).stdout) for more in ("", " --tta"))
    radiographs = [read_radiograph(row["path"]) for row in plain]
    predictor = Predictor.load(both_run.bundle, "cpu")
    for rows, tta in ((plain, False), (averaged_views, True)):
        found = predictor.predict_sex(radiographs, tta=tta)
        assert [row["male_probability"] for row in rows] == pytest.approx(found, abs=1e-6)
        months = predictor.predict(radiographs, [None] * len(rows), tta=tta)
        assert [row["months"] for row in rows] == pytest.approx(months, abs=1e-3)
    assert plain[0]["male_probability"] != averaged_views[0]["male_probability"]


def test_several_processes_tell_the_sexes_that_one_tells(both_run: Run, marked: Path) -> None:
    paths = islice(cycle(read_manifest(marked, "test")["path"]), ENOUGH_FOR_PROCESSES + 20)
    cases = [Case(path) for path in paths]
    predictor = Predictor.load(both_run.bundle, "cpu")
    alone, shared = (
        list(predictor.predict_files(cases, workers=2, force=True, processes=processes))
        for processes in (False, True)
    )
    assert predictor.processes(2) == 2
    assert shared == alone
    assert all(answer.male_probability is not None for answer in shared)


def test_python_has_the_probabilities_too(sex_run: Run, demo_bundle: Path, marked: Path) -> None:
    manifest = read_manifest(marked, "test").head(3)
    radiographs = [read_radiograph(path) for path in manifest["path"]]
    predictor = Predictor.load(sex_run.bundle, "cpu")
    found = predictor.predict_sex(radiographs, batch_size=2)
    answers = predictor.predict_files([Case(path) for path in manifest["path"]], force=True)
    assert found == pytest.approx([answer.male_probability for answer in answers], abs=1e-6)
    with pytest.raises(BoneageError, match="predicts no sex"):
        Predictor.load(demo_bundle, "cpu").predict_sex(radiographs)
    with pytest.raises(BoneageError, match="bone ages"):
        predictor.predict(radiographs, [None] * 3)
    # Even together with a model that needs the sex as an input.
    together = Predictor.load([demo_bundle, sex_run.bundle], "cpu")
    assert together.predict_sex(radiographs) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("predict {data}/test -m {model} --interval 90", "--interval"),
        ("predict {data}/test -m {model} --age 10y", "--age"),
        ("evaluate -d {data} -m {model} --stress", "--stress"),
        ("recalibrate {data}/test.csv -m {model} -o new.safetensors", "recalibrate"),
    ],
)
def test_what_is_about_ages_refuses_a_model_of_sex_in_one_line(
    line: str, asked: str, sex_run: Run, marked: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    result = boneage(line.format(data=marked, model=sex_run.bundle), status=2)
    (error,) = [text for text in result.stderr.splitlines() if text.startswith("error")]
    assert f"{asked}: applies to bone ages" in error
    assert not list(tmp_path.iterdir())


def test_evaluate_measures_sexes_and_tells_the_summary_of_runs(
    sex_run: Run, marked: Path, tmp_path: Path
) -> None:
    run = own(sex_run, tmp_path)
    result = boneage(f"evaluate -m {run} -d {marked} --split test")
    folder = run / "evaluation-test"
    assert {file.name for file in folder.iterdir()} == {
        "sex_metrics.json",
        "sex_predictions.csv",
        "sex.png",
    }
    figures = json.loads((folder / "sex_metrics.json").read_text())
    found = pd.read_csv(folder / "sex_predictions.csv")
    right = (found["sex"] == found["predicted_sex"]).mean()
    assert figures["accuracy"]["value"] == pytest.approx(right)
    assert figures["images"] == len(found) == 16
    assert set(figures["by_sex"]) == {"girls", "boys"}
    assert f"{right:.1%} (" in result.stdout
    assert "baseline" in result.stdout
    row = pd.read_csv(run.parent / "summary.csv").iloc[0]
    assert row["test_sex_accuracy"] == pytest.approx(right)
    assert np.isnan(row["test_mae"])


def test_evaluate_measures_both_where_a_model_predicts_both(
    both_run: Run, marked: Path, tmp_path: Path
) -> None:
    data = copied(marked, tmp_path)
    rows = pd.read_csv(data / "test.csv", dtype=str)
    columns = {name.lower(): name for name in rows.columns}
    rows.loc[:1, columns["boneage"]] = ""
    rows.loc[2:4, columns["male"]] = ""
    rows.to_csv(data / "test.csv", index=False)
    boneage(f"evaluate -m {both_run.bundle} -d {data} --split test -o {tmp_path}/out")
    ages, sexes = (
        json.loads((tmp_path / "out" / name).read_text())
        for name in ("metrics.json", "sex_metrics.json")
    )
    assert (ages["images"], ages["unlabelled"]) == (14, 2)
    assert (sexes["images"], sexes["unlabelled"]) == (13, 3)


def test_without_known_sexes_there_is_nothing_to_measure(sex_run: Run, marked: Path) -> None:
    manifest = read_manifest(marked, "test").assign(male=pd.NA)
    with pytest.raises(BoneageError, match=r"no radiograph here has a known sex.*--split"):
        measure(Predictor.load(sex_run.bundle, "cpu"), manifest)


def test_the_figures_of_a_run_are_those_of_its_bundle(sex_run: Run, marked: Path) -> None:
    measured = measure(
        Predictor.load(sex_run.bundle, "cpu", "32"), read_manifest(marked, "validation")
    )
    assert measured.ages is None
    assert measured.sexes is not None
    assert sex_run.evaluation is None
    assert sex_run.sexes is not None
    assert measured.sexes.overall == sex_run.sexes.overall
    result = json.loads((sex_run.folder / "result.json").read_text())
    assert result["validation_sex_accuracy"]["value"] == sex_run.sexes.accuracy.value
    assert result["validation_mae"] is None
    bundle = load_bundle(sex_run.bundle)
    assert bundle.metrics["validation_sexes"]["accuracy"] == result["validation_sex_accuracy"]
    # It detects out-of-distribution radiographs, as models of age do.
    assert bundle.likeness is not None


def test_folds_of_a_model_of_sex_are_measured_out_of_fold_and_average_as_one(
    tiny: Experiment, marked: Path, tmp_path: Path
) -> None:
    validation = cross_validate(of(tiny, "sex"), marked, 2, folder=tmp_path / "cv")
    sexes = validation.measured.sexes
    assert validation.measured.ages is None
    assert sexes is not None
    assert sexes.overall.images == 64 + 16
    assert validation.result.validation_sex_accuracy == sexes.accuracy
    written = pd.read_csv(tmp_path / "cv" / "out-of-fold" / "sex_predictions.csv")
    assert (written["sex"] == written["predicted_sex"]).mean() == pytest.approx(
        sexes.accuracy.value
    )
    cases = [Case(path) for path in read_manifest(marked, "test")["path"]]
    two = Predictor.load(tmp_path / "cv", "cpu", "32")
    one = Predictor([averaged(two.bundles)], "cpu", "32")
    assert one.backend == "openvino"
    assert [each.male_probability for each in one.predict_files(cases, force=True)] == (
        pytest.approx(
            [each.male_probability for each in two.predict_files(cases, force=True)], abs=1e-4
        )
    )


def test_models_that_predict_unlike_things_are_not_made_one(sex_run: Run, both_run: Run) -> None:
    with pytest.raises(BoneageError, match="does not predict what"):
        averaged([load_bundle(sex_run.bundle), load_bundle(both_run.bundle)])


def test_a_sweep_ranks_models_of_sex_by_right_ones(
    tiny: Experiment, marked: Path, tmp_path: Path
) -> None:
    write_experiment(of(tiny, "sex"), tmp_path / "sexes.toml")
    boneage(
        f"sweep -c {tmp_path}/sexes.toml --vary training.learning_rate=1e-7,3e-3 -d {marked} "
        f"-o {tmp_path}/sweep"
    )
    assert "sexes right (95 %)" in (tmp_path / "sweep" / "table.md").read_text()
    ranked = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert ranked["validation_sex_accuracy"].is_monotonic_decreasing
    assert ranked["training.learning_rate"].tolist() == [3e-3, 1e-7]
    # Difference in the error rate from the first combination of the sweep.
    assert ranked["against_first"].iloc[0] == pytest.approx(
        ranked["validation_sex_accuracy"].iloc[1] - ranked["validation_sex_accuracy"].iloc[0]
    )


def test_a_sweep_of_unlike_targets_ranks_ages_first_and_compares_like_with_like(
    tiny: Experiment, marked: Path, tmp_path: Path
) -> None:
    write_experiment(of(tiny, "sex"), tmp_path / "both.toml")
    boneage(
        f"sweep -c {tmp_path}/both.toml --vary model.targets=['sex'],['age'],['age','sex'] "
        f"--set training.epochs=1 -d {marked} -o {tmp_path}/sweep"
    )
    ranked = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert ranked["validation_mae"].notna().tolist() == [True, True, False]
    assert ranked["validation_sex_accuracy"].isna().sum() == 1
    # The first combination predicts only sex; errors in months cannot be compared with it.
    assert ranked["against_first"].isna().all()
    heads = (tmp_path / "sweep" / "table.md").read_text().splitlines()[0]
    assert "MAE, months, or sexes right (95 %)" in heads


def test_heat_shows_where_the_sex_comes_from(
    sex_run: Run, demo_bundle: Path, marked: Path, tmp_path: Path
) -> None:
    boy = next(row.path for row in read_manifest(marked, "test").itertuples() if row.male)
    boneage(f"predict {boy} -m {sex_run.bundle} --explain {tmp_path}/why")
    assert (tmp_path / "why" / f"{Path(boy).stem}.png").is_file()
    radiograph = read_radiograph(boy)
    # Together with a model of age, the heat map is that of the age.
    ages = Explainer(Predictor.load([sex_run.bundle, demo_bundle], "cpu", "32"))
    alone = Explainer(Predictor.load(demo_bundle, "cpu", "32"))
    np.testing.assert_array_equal(
        ages.explain(radiograph, True).heat, alone.explain(radiograph, True).heat
    )


def test_the_known_sex_stands_beside_whatever_comes_of_a_radiograph(
    sex_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("black.png", np.zeros((300, 250), np.uint8))
    Path("table.csv").write_text("path,sex\nblack.png,M\ngone.png,F\n")
    told, gone = table(boneage(f"predict table.csv -m {sex_run.bundle} -f csv --force", 1).stdout)
    assert (told["sex"], told["predicted_sex"] in ("M", "F")) == ("M", True)
    assert (gone["sex"], gone["predicted_sex"], bool(gone["error"])) == ("F", "", True)


def test_a_dicom_file_that_says_otherwise_is_warned_about(sex_run: Run, tmp_path: Path) -> None:
    dicom = dcmread(get_testdata_file("CT_small.dcm"))
    dicom.PatientSex = "F"
    dicom.save_as(tmp_path / "girl.dcm")
    line = f"predict {tmp_path}/girl.dcm -m {sex_run.bundle} --force"
    assert "taken as M, but it says F" in boneage(f"{line} -s M").stderr
    assert "taken as" not in boneage(line).stderr


def test_what_a_cross_validation_was_trained_on_is_told_where_no_age_is_known(
    tiny: Experiment, marked: Path, tmp_path: Path
) -> None:
    cross_validate(of(tiny, "sex"), marked, 2, folder=tmp_path / "cv")
    data = copied(marked, tmp_path)
    for forget in ([], ["boneage"]):
        rows = pd.read_csv(data / "validation.csv", dtype=str)
        rows[forget] = ""
        rows.to_csv(data / "validation.csv", index=False)
        line = f"evaluate -m {tmp_path}/cv -d {data} --split validation -o {tmp_path}/out"
        assert "16 of these radiographs were trained on" in boneage(line).stderr
    # With the other sex they are not taken for the training radiographs.
    rows["male"] = ["False" if male == "True" else "True" for male in rows["male"]]
    rows.to_csv(data / "validation.csv", index=False)
    assert "were trained on" not in boneage(line).stderr


def test_figures_of_another_measurement_do_not_stay_beside_new_ones(
    both_run: Run, marked: Path, tmp_path: Path
) -> None:
    run = own(both_run, tmp_path)
    boneage(f"evaluate -m {run} -d {marked} --split test -o {tmp_path}/again")
    data = copied(marked, tmp_path)
    rows = pd.read_csv(data / "test.csv", dtype=str)
    rows.assign(male="").to_csv(data / "test.csv", index=False)
    result = boneage(f"evaluate -m {run} -d {data} --split test -o {tmp_path}/again")
    assert "sexes      not evaluated" in result.stdout
    names = {file.name for file in (tmp_path / "again").iterdir()}
    assert names == {"metrics.json", "predictions.csv", "scatter.png", "bland_altman.png"}
    # Neither do those of another model.
    other = f"evaluate -m {both_run.bundle} -d {marked} --split test -o {tmp_path}/out"
    boneage(other)
    boneage(f"evaluate -m {run} -d {data} --split test -o {tmp_path}/out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == names


def test_samples_are_of_what_is_known(sex_run: Run, marked: Path, tmp_path: Path) -> None:
    data = copied(marked, tmp_path)
    rows = pd.read_csv(data / "test.csv", dtype=str).assign(boneage="")
    rows.loc[::2, "male"] = ""
    rows.to_csv(data / "test.csv", index=False)
    # The test split is the default if it has the labels needed.
    boneage(f"evaluate -m {sex_run.bundle} -d {data} --sample 6 -o {tmp_path}/out")
    figures = json.loads((tmp_path / "out" / "sex_metrics.json").read_text())
    assert (figures["split"], figures["images"], figures["chosen_of"]) == ("test", 6, 8)
    # Unknown ages are in no band.
    assert figures["by_age"] == {}
    error = boneage(f"evaluate -m {sex_run.bundle} -d {data} --sample 9", 2).stderr
    assert "the split has 8 with a known sex" in " ".join(error.split())


def test_a_model_that_tells_the_sex_is_not_made_to_ask_for_it(
    both_run: Run, marked: Path, tmp_path: Path
) -> None:
    line = f"recalibrate {marked}/test.csv -m {both_run.bundle} -o {tmp_path}/new.safetensors"
    assert "also predicts the sex" in boneage(line, 2).stderr


def test_folds_of_both_are_measured_in_both(tiny: Experiment, marked: Path, tmp_path: Path) -> None:
    validation = cross_validate(of(tiny, "age", "sex"), marked, 2, folder=tmp_path / "cv")
    ages, sexes = validation.measured.ages, validation.measured.sexes
    assert ages is not None
    assert sexes is not None
    assert ages.overall.images == sexes.overall.images == 64 + 16
    folds = [
        pd.read_csv(tmp_path / "cv" / f"fold-{fold}" / "validation" / "sex_predictions.csv")
        for fold in (1, 2)
    ]
    joined = pd.concat(folds)
    exact = compute_sex_metrics(
        (joined["sex"] == "M").to_numpy(), joined["male_probability"].to_numpy()
    )
    assert sexes.overall == exact
    assert joined["male_probability"].round(4).nunique() < joined["male_probability"].nunique()
    for fold in (1, 2):
        calibration = load_bundle(tmp_path / "cv" / f"fold-{fold}" / "best.safetensors").calibration
        assert calibration is not None
        assert "out of fold" in calibration.source


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_exported_model_gives_both_answers(format: str, both_run: Run, tmp_path: Path) -> None:
    target = tmp_path / f"both.{'onnx' if format == 'onnx' else 'xml'}"
    export = export_model(both_run.bundle, format, target)  # type: ignore[arg-type]
    assert set(export.differences) == {"months", "male_probability"}
    assert all(value <= TOLERANCES[name] for name, value in export.differences.items())
    assert "male" not in export.inputs
    assert (export.images, export.sexes) == (8, False)


def test_bench_times_a_model_of_sex(sex_run: Run, marked: Path, tmp_path: Path) -> None:
    result = boneage(
        f"bench --model {sex_run.bundle} --images {marked}/test --seconds 0.5 "
        f"--batch-sizes 1 --reference -o {tmp_path}/bench"
    )
    assert "images/s" in result.stdout


def test_figures_of_sexes_are_what_they_are_by_hand() -> None:
    male = np.array([True, True, True, False, False])
    metrics = compute_sex_metrics(male, np.array([0.9, 0.6, 0.2, 0.6, 0.1]))
    assert metrics.images == 5
    assert metrics.accuracy.value == pytest.approx(3 / 5)
    # Of six pairs of a boy and a girl, four are ordered correctly and one is a tie.
    assert metrics.auc == pytest.approx(4.5 / 6)
    assert metrics.brier == pytest.approx((0.01 + 0.16 + 0.64 + 0.36 + 0.01) / 5)
    assert compute_sex_metrics(male[:2], np.array([0.9, 0.6])).auc is None


def test_an_interval_has_a_width_where_all_are_right() -> None:
    # Newcombe, Stat Med 1998;17:857-872, table I: Wilson intervals of these proportions.
    for right, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = share_interval(np.arange(count) < right)
        assert found.value == right / count
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    for count in range(2, 80):
        assert share_interval(np.zeros(count, bool)).low == 0
        assert share_interval(np.ones(count, bool)).high == 1
    assert share_interval(np.ones(5, bool)).low == pytest.approx(0.5655, abs=1e-4)


def test_nothing_is_certain() -> None:
    (line,) = text_lines([Prediction(Case("a.png"), None, male_probability=0.99999)])
    assert line == "a.png: boy (probability 0.999)\n"


def test_the_baseline_says_the_sex_that_was_more_frequent_in_training() -> None:
    rows = pd.DataFrame({"id": range(4), "boneage": 100.0, "male": [True, True, True, False]})
    sure = np.full(4, 0.9)
    assert evaluate_sexes(rows, sure).baseline == 0.75
    assert evaluate_sexes(rows, sure, boys_in_training=0.4).baseline == 0.25
    failed = evaluate_sexes(rows, np.array([0.9, 0.9, np.nan, 0.1]))
    assert (failed.failed, failed.overall.images) == (1, 3)
    with pytest.raises(BoneageError, match=r"none of 4 radiographs could be predicted; .*broken"):
        evaluate_sexes(rows, np.full(4, np.nan), errors=["broken"] * 4)


def test_a_doubtful_sex_says_so() -> None:
    found = Prediction(Case("a.png"), None, reason="unlike-training", male_probability=0.25)
    (line,) = text_lines([found])
    assert line.startswith("a.png: girl (probability 0.750) [doubtful: ")


@pytest.mark.parametrize("frequent", [True, False])
def test_the_baseline_of_a_measurement_is_the_sex_that_its_train_split_has_more_of(
    sex_run: Run, marked: Path, tmp_path: Path, frequent: bool
) -> None:
    data = copied(marked, tmp_path)
    train_split = pd.read_csv(data / "train.csv")
    train_split["male"] = (np.arange(len(train_split)) % 5 != 0) == frequent
    train_split.to_csv(data / "train.csv", index=False)
    test_split = pd.read_csv(data / "test.csv")
    # Three quarters of the test split are boys, whatever the ratio in the train split.
    test_split["male"] = np.arange(len(test_split)) % 4 != 0
    test_split.to_csv(data / "test.csv", index=False)
    boneage(f"evaluate -m {sex_run.bundle} -d {data} --split test -o {tmp_path}/out")
    figures = json.loads((tmp_path / "out" / "sex_metrics.json").read_text())
    assert figures["baseline"] == pytest.approx(0.75 if frequent else 0.25)


def test_a_forced_answer_has_the_sex_too(sex_run: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((300, 240), 9, np.uint8))
    line = f"predict {tmp_path}/blank.png -m {sex_run.bundle} -f json --force"
    (row,) = json.loads(boneage(line).stdout)
    assert row["reason"] == "no-hand"
    assert 0 <= row["male_probability"] <= 1
    assert row["predicted_sex"] in ("F", "M")
