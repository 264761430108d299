"""Tests of cross-validation."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import load_as_one, load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment, write_experiment
from boneage_cli.core.fingerprints import is_among
from boneage_cli.core.intervals import coverage
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.run_record import Resources
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.core.training.folds import CrossValidation, cross_validate, resume_cross_validation
from boneage_cli.core.training.run import train
from boneage_cli.core.training.run_result import RunResult
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.splits import Fold
from boneage_cli.errors import BoneageError, BoneageWarning, Interrupted

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def validation(
    demo_data: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> CrossValidation:
    """A cross-validation of the tiny network with three folds."""
    return cross_validate(tiny, demo_data, 3, runs=tmp_path_factory.mktemp("runs"))


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype={"image_id": str})


def test_every_radiograph_but_the_test_split_is_predicted_once(
    validation: CrossValidation, demo_data: Path
) -> None:
    manifest = read_manifest(demo_data)
    known = manifest[manifest["split"] != "test"].set_index("id")["boneage"]
    found = predictions(validation.folder / "out-of-fold").set_index("image_id")["true"]
    assert sorted(found.index) == sorted(known.index)
    assert np.allclose(found.sort_index(), known.sort_index())


def test_no_model_predicts_what_it_was_trained_on(validation: CrossValidation) -> None:
    held_out = [
        set(predictions(validation.folder / f"fold-{number}" / "validation")["image_id"])
        for number in (1, 2, 3)
    ]
    assert sum(len(ids) for ids in held_out) == len(set.union(*held_out)) == 80
    for result, ids in zip(validation.folds, held_out, strict=True):
        assert result.train_images == 80 - len(ids)
        assert result.validation_images == len(ids)


def test_the_initial_weights_of_a_training_are_those_of_one_fold(
    validation: CrossValidation,
) -> None:
    fold = validation.folder / "fold-1"
    with pytest.raises(BoneageError, match=f"one model per fold; name one of them, such as {fold}"):
        load_experiment(flags={"model.weights": str(validation.folder)})
    found = load_experiment(flags={"model.weights": str(fold)})
    assert found.model.weights == str(fold / "best.safetensors")


def test_weights_that_saw_the_validation_radiographs_are_told_and_remembered(
    validation: CrossValidation, demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    fold = validation.folder / "fold-1"
    model = tiny.model.model_copy(update={"weights": str(fold / "best.safetensors")})
    held_out = predictions(fold / "validation")["image_id"]
    measured = read_manifest(demo_data, "validation")
    seen = ~measured["id"].astype(str).isin(held_out).to_numpy()
    with pytest.warns(BoneageWarning, match=f"trained on {seen.sum()} of the 16 validation"):
        run = train(tiny.model_copy(update={"model": model}), demo_data, runs=tmp_path)
    trained_on = load_bundle(run.bundle).trained_on
    assert trained_on is not None
    assert (is_among(measured, trained_on) == seen).all()


def test_evaluate_says_where_a_cross_validation_was_trained_on_what_it_measures(
    validation: CrossValidation, demo_data: Path, tmp_path: Path
) -> None:
    def warnings(split: str, model: Path) -> str:
        line = f"--data {demo_data} --split {split} --output {tmp_path / split}"
        result = CliRunner().invoke(app, ["evaluate", *line.split(), "--model", str(model)])
        assert result.exit_code == 0, result.output
        return " ".join(result.stderr.split())

    told = warnings("validation", validation.folder)
    assert "16 of these radiographs were trained on" in told
    assert "out-of-fold/" in told
    own = predictions(validation.folder / "fold-1" / "validation")["image_id"]
    split = read_manifest(demo_data, "validation")["id"].astype(str)
    others = f"{16 - split.isin(own).sum()} of these radiographs"
    assert others in warnings("validation", validation.folder / "fold-1" / "best.safetensors")
    assert "warning" not in warnings("test", validation.folder)


def test_the_mae_is_that_of_all_folds_together(validation: CrossValidation) -> None:
    errors = predictions(validation.folder / "out-of-fold")["absolute_error"]
    mae = validation.result.validation_mae
    assert mae is not None
    assert mae.value == pytest.approx(errors.mean(), abs=1e-3)
    assert mae.low < mae.value < mae.high
    assert RunResult.read(validation.folder) == validation.result


def test_all_folds_share_one_cache(
    tiny: Experiment, demo_data: Path, validation: CrossValidation
) -> None:
    sizes = [np.load(path, mmap_mode="r").shape for path in (demo_data / ".cache").glob("*.npy")]
    assert sum(shape == (80, 64, 56) for shape in sizes) == 1


def test_the_folder_names_the_ensemble_of_all_folds(
    validation: CrossValidation, demo_data: Path
) -> None:
    row = read_manifest(demo_data, "test").iloc[0]
    case = Case(row["path"], bool(row["male"]))
    ensemble = next(Predictor.load([validation.folder]).predict_files([case]))
    members = [
        next(Predictor.load([validation.folder / f"fold-{n}"]).predict_files([case])).months
        for n in (1, 2, 3)
    ]
    assert len(set(members)) == 3
    assert ensemble.months == pytest.approx(np.mean(members), abs=1e-3)


def test_the_ensemble_can_be_one_file(
    validation: CrossValidation, demo_data: Path, tmp_path: Path
) -> None:
    row = read_manifest(demo_data, "test").iloc[0]
    case = Case(row["path"], bool(row["male"]))
    path = tmp_path / "one.safetensors"
    save_bundle(load_as_one(validation.folder), path)
    one, several = (
        next(Predictor.load(model).predict_files([case], interval=80))
        for model in (path, validation.folder)
    )
    assert one.months == pytest.approx(several.months, abs=1e-2)
    assert one.interval == pytest.approx(several.interval, abs=1e-2)


def test_the_ensemble_is_exported_as_one_network(
    validation: CrossValidation, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    line = ["export", "--model", str(validation.folder), "--format", "openvino"]
    result = CliRunner().invoke(app, [*line, "--output", str(tmp_path / "mean.xml")])
    assert result.exit_code == 0, result.output
    assert "as girls and as boys: at most 0.0" in result.stdout


def test_every_model_has_intervals_calibrated_out_of_fold(validation: CrossValidation) -> None:
    errors = predictions(validation.folder / "out-of-fold")["absolute_error"].sort_values()
    for number in (1, 2, 3):
        calibration = load_bundle(
            validation.folder / f"fold-{number}" / "best.safetensors"
        ).calibration
        assert calibration.images["all"] == 80
        assert calibration.source == "80 radiographs, out of fold, 3 folds"
        # The 90 % quantile of 80 errors and one future error is the 73rd.
        assert calibration.widths["all"][90 - 50] == pytest.approx(errors.iloc[72], abs=1e-2)


def test_the_same_settings_give_the_same_folds(
    validation: CrossValidation, demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    again = cross_validate(tiny, demo_data, 3, runs=tmp_path)
    columns = ["image_id", "predicted"]
    pd.testing.assert_frame_equal(
        predictions(again.folder / "out-of-fold")[columns],
        predictions(validation.folder / "out-of-fold")[columns],
    )


def test_a_killed_cross_validation_goes_on_and_trains_no_fold_twice(
    demo_data: Path, tiny: Experiment, tmp_path: Path, start_training: Start
) -> None:
    settings = tiny.training.model_copy(update={"epochs": 3})
    experiment = tiny.model_copy(update={"training": settings})
    process = start_training(
        experiment, demo_data, tmp_path / "runs", "--folds", "2", until="fold 2 of 2"
    )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    finished = (folder / "fold-1" / "history.csv").stat().st_mtime_ns
    assert not (folder / "fold-2" / "result.json").exists()

    resumed = resume_cross_validation(folder)
    assert (folder / "fold-1" / "history.csv").stat().st_mtime_ns == finished
    whole = cross_validate(experiment, demo_data, 2, runs=tmp_path / "whole")
    assert np.allclose(
        predictions(resumed.folder / "out-of-fold")["predicted"],
        predictions(whole.folder / "out-of-fold")["predicted"],
        atol=1e-2,
    )


def test_an_interrupt_between_two_folds_says_how_to_go_on_and_what_is_there_warns(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    def stop_at_the_second(fold: Fold) -> None:
        if fold.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"in fold 2 of 2; go on with: .* --resume .*cv$"):
        cross_validate(tiny, demo_data, 2, folder=tmp_path / "cv", begin=stop_at_the_second)
    with pytest.warns(BoneageWarning, match=r"cv: only 1 of 2 folds are finished"):
        Predictor.load(tmp_path / "cv")


def test_the_radiographs_that_each_model_was_trained_on_are_told(
    validation: CrossValidation, demo_data: Path
) -> None:
    pooled = len(pd.read_csv(demo_data / "train.csv")) + len(
        pd.read_csv(demo_data / "validation.csv")
    )
    assert validation.result.validation_images == pooled
    assert validation.result.train_images == max(result.train_images for result in validation.folds)
    assert validation.result.train_images < pooled


def test_the_command_prints_each_fold_and_the_whole(
    demo_data: Path, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    write_experiment(tiny, tmp_path / "settings.toml")
    line = f"train -c {tmp_path}/settings.toml --data {demo_data} --folds 2 --runs {tmp_path}/runs"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    for words in ("fold 1 of 2", "fold 2 of 2", "all, out of fold", "predicting the mean age"):
        assert words in result.stdout
    # The best epoch is kept, which is chosen on the fold itself.
    assert "slightly optimistic" in result.stdout
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    again = CliRunner().invoke(app, ["train", "--resume", str(folder)])
    assert again.exit_code == 0
    assert "epoch" not in again.stdout.split("Cross-validation")[0].replace("epoch kept", "")


def test_folds_that_cannot_be_trained_leave_no_folder(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    fewer = tiny.model_copy(update={"data": tiny.data.model_copy(update={"train_images": 10**6})})
    with pytest.raises(BoneageError, match="train_images"):
        cross_validate(fewer, demo_data, 2, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_with_other_work_is_left_alone(
    validation: CrossValidation, demo_data: Path, tiny: Experiment
) -> None:
    with pytest.raises(BoneageError, match="of other settings or of another data set"):
        cross_validate(tiny, demo_data, 4, folder=validation.folder)
    other = tiny.model_copy(update={"name": "other"})
    with pytest.raises(BoneageError, match="other settings"):
        cross_validate(other, demo_data, 3, folder=validation.folder)


def test_a_cross_validation_goes_on_with_its_cache(
    tiny: Experiment, own_data: Path, tmp_path: Path
) -> None:
    # A file in place of the default cache folder makes it unusable.
    (own_data / ".cache").write_text("")

    def stop_at_the_second(fold: Fold) -> None:
        if fold.number == 2:
            raise KeyboardInterrupt

    resources = Resources(cache=tmp_path / "cache")
    with pytest.raises(Interrupted):
        cross_validate(
            tiny,
            own_data,
            2,
            folder=tmp_path / "run",
            resources=resources,
            begin=stop_at_the_second,
        )
    assert len(resume_cross_validation(tmp_path / "run").folds) == 2


@pytest.mark.parametrize("cell", ["Test", "testing", "", "train"])
def test_the_test_split_is_never_learnt_from_whatever_its_cells_say(
    cell: str, tiny: Experiment, own_data: Path
) -> None:
    table = pd.read_csv(own_data / "test.csv", dtype=str)
    table.assign(split=cell).to_csv(own_data / "test.csv", index=False)
    tested = set(table["id"])
    for fold in (Fold(1, 2), Fold(2, 2)):
        held = BoneAgeData(own_data, tiny, fold=fold)
        assert not tested & {*held.train_manifest["id"], *held.validation_manifest["id"]}


def test_the_time_of_a_cross_validation_is_that_of_all_folds(validation: CrossValidation) -> None:
    seconds = [fold.seconds for fold in validation.folds]
    assert validation.result.seconds == pytest.approx(sum(seconds), abs=0.06)
    of_epochs = [
        pd.read_csv(validation.folder / f"fold-{number}" / "history.csv")["seconds"].sum()
        for number in (1, 2, 3)
    ]
    assert seconds == pytest.approx(of_epochs, abs=0.06)


def test_the_table_of_how_often_intervals_hold_is_of_all_radiographs(
    validation: CrossValidation,
) -> None:
    found = pd.read_csv(validation.folder / "out-of-fold" / "coverage.csv").set_index("group")
    assert found.loc["all", "images"] == 80
    assert 0.75 < found.loc["all", "share_held"] <= 1
    # Of each fold with the intervals of the others.
    folds = [
        pd.read_csv(validation.folder / f"fold-{number}" / "validation" / "predictions.csv")
        for number in (1, 2, 3)
    ]
    joined = pd.concat(folds).reset_index(drop=True)
    parts = np.repeat([1, 2, 3], [len(fold) for fold in folds])
    for group, (images, share, width) in coverage(joined, parts, 90).items():
        row = found.loc[group]
        assert (row["images"], row["share_held"], row["mean_width"]) == pytest.approx(
            (images, share, width), abs=2e-3
        )
