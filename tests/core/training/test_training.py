"""Tests of training runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation.measuring import measure
from boneage_cli.core.experiment_file import load_experiment, write_experiment
from boneage_cli.core.intervals import LEVELS, Calibration
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.training.datamodule import BoneAgeData, mean_and_deviation
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import resume, train, train_into
from boneage_cli.core.training.trainer import accelerator_of
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.locks import only_process

Start = Callable[..., subprocess.Popen[str]]


def test_a_run_folder_holds_all_that_a_run_made(demo_run: Run) -> None:
    names = {path.name for path in demo_run.folder.iterdir() if "tfevents" not in path.name}
    assert names == {
        ".lock",
        "settings.toml",
        "run.json",
        "result.json",
        "history.csv",
        "last.ckpt",
        "best.safetensors",
        "learning_curve.png",
        "validation",
    }
    assert any("tfevents" in path.name for path in demo_run.folder.iterdir())
    validation = {path.name for path in (demo_run.folder / "validation").iterdir()}
    assert validation == {"metrics.json", "predictions.csv", "scatter.png", "bland_altman.png"}
    # Models are named as by ``boneage evaluate``.
    figures = json.loads((demo_run.folder / "validation" / "metrics.json").read_text())
    assert figures["model"] == [str(demo_run.bundle)]
    history = pd.read_csv(demo_run.folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert np.isfinite(history.to_numpy()).all()


def test_the_settings_of_a_run_can_be_trained_again(demo_run: Run, tiny: Experiment) -> None:
    assert load_experiment(demo_run.folder / "settings.toml") == tiny


def test_the_table_of_runs_has_a_row_per_run_with_the_columns_of_s1(demo_run: Run) -> None:
    table = pd.read_csv(demo_run.folder.parent / "summary.csv")
    row = table[table["save_dir"] == str(demo_run.folder)].iloc[0]
    assert row["model_name"] == "global+sex"
    assert row["num_params"] == demo_run.parameters
    assert row["val_mae"] == pytest.approx(demo_run.evaluation.mae.value)
    best = pd.read_csv(demo_run.folder / "history.csv").iloc[demo_run.kept_epoch - 1]
    assert best["val_r2"] == pytest.approx(demo_run.evaluation.overall.r_squared, abs=1e-3)
    assert row["best_epoch"] == demo_run.kept_epoch
    assert row["cfg.training.batch_size"] == 16


def test_a_bundle_says_where_it_comes_from(demo_run: Run, tiny: Experiment) -> None:
    bundle = load_bundle(demo_run.bundle)
    assert bundle.experiment == tiny
    assert bundle.provenance["data"] == "demo"
    assert bundle.provenance["train_images"] == 64
    assert bundle.provenance["software"].startswith("boneage ")
    assert bundle.metrics["validation"]["images"] == 16
    # But nothing of the machine that it was trained on.
    with safe_open(demo_run.bundle, "pt") as file:
        assert str(demo_run.folder.parents[1]) not in str(file.metadata())


def test_the_same_pixels_give_the_same_months_everywhere(demo_run: Run, demo_data: Path) -> None:
    in_training = pd.read_csv(demo_run.folder / "validation" / "predictions.csv")
    predictor = Predictor.load([demo_run.bundle], precision="32")
    manifest = read_manifest(demo_data, "validation")
    evaluated = measure(predictor, manifest).ages.predictions["predicted"]
    cases = [Case(row.path, male=row.male) for row in manifest.itertuples()]
    predicted = [p.months for p in predictor.predict_files(cases, batch_size=5)]
    assert np.abs(in_training["predicted"] - evaluated).max() < 1e-3
    assert np.abs(in_training["predicted"] - predicted).max() < 1e-3
    best = pd.read_csv(demo_run.folder / "history.csv")["val_mae"].min()
    assert in_training["absolute_error"].mean() == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(
    "extra", [{"ema": 0.9}, {"schedule": "plateau", "plateau_patience": 0}], ids=["ema", "plateau"]
)
def test_a_run_that_was_killed_and_resumed_ends_as_if_it_had_not_been(
    extra: dict[str, object],
    demo_data: Path,
    tiny: Experiment,
    tmp_path: Path,
    start_training: Start,
) -> None:
    also = {"epochs": 4, "keep_every": 2, "log_every": 3}
    settings = tiny.training.model_copy(update=also | extra)
    model = tiny.model.model_copy(update={"dropout": 0.3})
    experiment = tiny.model_copy(update={"training": settings, "model": model})
    whole = train(experiment, demo_data, runs=tmp_path / "whole")

    process = start_training(experiment, demo_data, tmp_path / "killed")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (tmp_path / "killed").iterdir()
    assert not (folder / "validation").exists(), "it ended before it could be killed"
    resumed = resume(folder)

    columns = ["epoch", "train_loss", "train_mae", "val_mae", "learning_rate"]
    expected = pd.read_csv(whole.folder / "history.csv")[columns]
    found = pd.read_csv(resumed.folder / "history.csv")[columns]
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-5)
    columns = ["epoch", "batch", "loss", "mae", "rmse", "learning_rate"]
    expected = pd.read_csv(whole.folder / "batches.csv")[columns]
    found = pd.read_csv(resumed.folder / "batches.csv")[columns]
    # Four batches per epoch, of which every third is logged.
    assert expected[["epoch", "batch"]].to_numpy().tolist() == [[e, 3] for e in (1, 2, 3, 4)]
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-5)
    kept = ["epoch-002.safetensors", "epoch-004.safetensors"]
    assert sorted(path.name for path in resumed.folder.glob("epoch-*")) == kept
    for name in ("best.safetensors", *kept):
        first, second = (load_bundle(run.folder / name).weights for run in (whole, resumed))
        for weight in first:
            torch.testing.assert_close(second[weight], first[weight], rtol=1e-4, atol=1e-5)


def test_a_run_that_was_killed_behind_its_last_checkpoint_has_its_model_again(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    settings = tiny.training.model_copy(update={"keep": "last", "ema": 0.5})
    run = train(tiny.model_copy(update={"training": settings}), demo_data, runs=tmp_path)
    before = load_bundle(run.bundle).weights
    for name in ("best.safetensors", "result.json"):
        (run.folder / name).unlink()
    again = resume(run.folder)
    assert again.kept_epoch == run.kept_epoch
    weights = load_bundle(again.bundle).weights
    assert all(torch.equal(weights[name], before[name]) for name in before)


def test_a_finished_run_that_is_resumed_is_measured_again_and_stays_what_it_is(
    demo_run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(demo_run.folder, folder)
    # As in the models of a cross-validation's folds.
    calibration = Calibration({"all": (9.0,) * len(LEVELS)}, {"all": 80}, "80 out of fold")
    bundle = replace(load_bundle(folder / "best.safetensors"), calibration=calibration)
    save_bundle(bundle, folder / "best.safetensors")
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = resume(folder)
    written = {path for path in folder.rglob("*") if path.is_file()}
    assert written == set(kept)
    assert [path for path in kept if path.read_bytes() != kept[path]] == []
    assert again.evaluation is not None
    assert demo_run.evaluation is not None
    assert again.evaluation.overall == demo_run.evaluation.overall


def test_a_training_that_ended_early_is_not_resumed(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    still = tiny.training.model_copy(
        update={"epochs": 9, "patience": 1, "learning_rate": 1e-9, "norm_images": 0}
    )
    run = train(tiny.model_copy(update={"training": still}), demo_data, runs=tmp_path)
    history = (run.folder / "history.csv").read_text()
    assert run.epochs < 9
    assert resume(run.folder).epochs == run.epochs
    assert (run.folder / "history.csv").read_text() == history


def test_a_folder_in_which_another_process_is_about_to_begin_is_left_to_it(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        only_process(folder, "busy"),
        pytest.raises(BoneageError, match=f"{folder}: another process is training it"),
    ):
        train_into(folder, tiny, RunRecord.new(demo_data))
    assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_is_trained_by_one_process_whose_interrupt_says_how_to_go_on(
    number: int,
    status: int,
    demo_data: Path,
    tiny: Experiment,
    tmp_path: Path,
    start_training: Start,
) -> None:
    settings = tiny.training.model_copy(update={"epochs": 500})
    experiment = tiny.model_copy(update={"training": settings})
    process = start_training(experiment, demo_data, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    with pytest.raises(BoneageError, match=f"{folder}: another process is training it"):
        resume(folder)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"boneage train --resume {folder}" in errors
    assert "Traceback" not in errors
    with pytest.warns(BoneageWarning, match=f"{folder}: its training is not finished"):
        Predictor.load(folder, "cpu")


@pytest.mark.parametrize("option", ["--set training.epochs=9", "--folds 2", "--devices cpu"])
def test_resume_takes_no_settings_beside_it(option: str, demo_run: Run) -> None:
    line = ["train", "--resume", str(demo_run.folder), *option.split()]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert f"{option.split()[0]} with --resume: a run is resumed with the settings" in result.stderr


def moved_run(run: Run, data: Path, folder: Path) -> tuple[Path, Path]:
    """Copies a data set and a finished run, with run.json pointing to the copied data."""
    copy, place = folder / "data", folder / "run"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns(".cache"))
    shutil.copytree(run.folder, place)
    record = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**record, "data": str(copy)}))
    return copy, place


def test_a_run_is_not_resumed_with_settings_that_were_edited_meanwhile(
    demo_run: Run, demo_data: Path, tmp_path: Path
) -> None:
    _, folder = moved_run(demo_run, demo_data, tmp_path)
    settings = folder / "settings.toml"
    settings.write_text(settings.read_text().replace("epochs = 2", "epochs = 3"))
    with pytest.raises(BoneageError, match=f"{settings}: was edited after the run began"):
        resume(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    share: float, demo_run: Run, demo_data: Path, tmp_path: Path
) -> None:
    _, folder = moved_run(demo_run, demo_data, tmp_path)
    checkpoint = folder / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[: int(share * checkpoint.stat().st_size)])
    with pytest.raises(BoneageError, match=f"{checkpoint}: damaged; remove it to train this run"):
        resume(folder)
    checkpoint.unlink()
    assert resume(folder).epochs == demo_run.epochs


def change_a_label(data: Path, split: str, column: str) -> None:
    table = pd.read_csv(data / f"{split}.csv")
    value = table.loc[3, column]
    table.loc[3, column] = value + 1 if column == "boneage" else not value
    table.to_csv(data / f"{split}.csv", index=False)


@pytest.mark.parametrize("column", ["boneage", "male"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_run_whose_labels_changed_is_not_resumed(
    split: str, column: str, demo_run: Run, demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    data, folder = moved_run(demo_run, demo_data, tmp_path)
    assert BoneAgeData(data, tiny).digest() == RunRecord.read(folder).data_digest
    change_a_label(data, split, column)
    with pytest.raises(BoneageError, match="labels or images changed since run began"):
        resume(folder)


def test_a_finished_run_is_not_taken_for_one_of_data_that_changed_since(
    demo_run: Run, demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    data, folder = moved_run(demo_run, demo_data, tmp_path)
    again = RunRecord.new(data)
    assert train_into(folder, tiny, again).validation_mae is not None
    change_a_label(data, "train", "boneage")
    with pytest.raises(BoneageError, match="labels or images changed since run began"):
        train_into(folder, tiny, again)


@pytest.mark.parametrize("change", ["an image", "its proportions"])
def test_a_run_whose_images_changed_is_not_resumed(
    change: str, own_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    run = train(tiny, own_data, runs=tmp_path / "runs")
    if change == "an image":
        one, other, *_ = sorted((own_data / "train").iterdir())
        shutil.copyfile(one, other)
    else:
        table = pd.read_csv(own_data / "train.csv").assign(width=100, height=200)
        table.to_csv(own_data / "train.csv", index=False)
    with pytest.raises(BoneageError, match="labels or images changed since"):
        resume(run.folder)


def test_a_foreign_table_of_runs_stays_and_the_run_is_whole(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    (tmp_path / "summary.csv").write_text("someone,else\n1,2\n")
    with pytest.warns(BoneageWarning, match=r"summary.csv: cannot be read as a table of runs"):
        run = train(tiny, demo_data, runs=tmp_path)
    assert (run.folder / "result.json").exists()
    assert (tmp_path / "summary.csv").read_text() == "someone,else\n1,2\n"


@pytest.mark.parametrize(
    ("options", "following"),
    [
        (["--set", "data.sex=F"], "boneage predict INPUT --sex F --model"),
        (["--no-gender"], "boneage predict INPUT --model"),
        (["--no-gender", "--set", "model.targets=['sex']"], "boneage predict INPUT --model"),
    ],
)
def test_what_a_training_says_at_its_end_is_true(
    options: list[str],
    following: str,
    demo_data: Path,
    tiny: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    write_experiment(tiny, tmp_path / "tiny.toml")
    line = ["train", "--config", str(tmp_path / "tiny.toml"), "--data", str(demo_data)]
    result = CliRunner().invoke(app, [*line, "--runs", str(tmp_path / "[runs]"), *options])
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "[runs]").glob("*-tiny")
    place, names = next(
        line.removeprefix("plots").strip().split(": ")
        for line in result.stdout.splitlines()
        if line.startswith("plots")
    )
    assert Path(place) == folder
    assert all((folder / name).is_file() for name in names.split(", "))
    said = [text for text in result.stdout.splitlines() if text.startswith("next")]
    assert f"{following} {folder}" in said[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match="is this a run folder"):
        resume(tmp_path)


def test_a_bundle_can_be_read_by_whom_the_umask_lets(demo_bundle: Path) -> None:
    beside = demo_bundle.with_name("settings.toml")
    assert demo_bundle.stat().st_mode == beside.stat().st_mode


def test_a_bundle_is_no_pickle_and_a_damaged_one_is_named(
    demo_bundle: Path, tmp_path: Path
) -> None:
    with safe_open(demo_bundle, framework="pt") as file:
        assert json.loads(file.metadata()["boneage"])["format"] == "boneage-bundle-1"
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(demo_bundle.read_bytes()[:1000])
    with pytest.raises(BoneageError, match=r"damaged\.safetensors"):
        load_bundle(damaged)
    with pytest.raises(BoneageError, match="no such model bundle"):
        load_bundle(tmp_path / "absent.safetensors")


def test_a_model_without_sex_is_the_same_for_boys_and_girls(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    model = tiny.model.model_copy(update={"gender": False})
    run = train(tiny.model_copy(update={"model": model}), demo_data, runs=tmp_path)
    predictor = Predictor.load([run.bundle])
    assert not predictor.needs_sex
    path = read_manifest(demo_data, "test")["path"].iloc[0]
    boy, girl, unknown = predictor.predict_files([Case(path, sex) for sex in (True, False, None)])
    assert boy.months == girl.months == unknown.months


def test_a_second_training_reads_no_image_again(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    train(tiny, demo_data, runs=tmp_path / "runs", resources=Resources(cache=cache))
    built = {path: path.stat().st_mtime_ns for path in cache.glob("pixels-*.npy")}
    assert len(built) == 2
    train(tiny, demo_data, runs=tmp_path / "runs", resources=Resources(cache=cache))
    assert {path: path.stat().st_mtime_ns for path in cache.glob("pixels-*.npy")} == built


def test_a_cache_that_was_cut_off_is_made_anew(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    resources = Resources(cache=tmp_path / "cache")
    train(tiny, demo_data, runs=tmp_path / "runs", resources=resources)
    whole = {path: path.read_bytes() for path in (tmp_path / "cache").glob("pixels-*.npy")}
    for path, size in zip(whole, (0, 5000), strict=True):
        path.write_bytes(whole[path][:size])
    # What a killed build left; the other may still be growing, on a file system without locks.
    left, growing = (tmp_path / "cache" / f".pixels-{name}-hand-01.npy" for name in "ab")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    growing.write_bytes(b"half")
    train(tiny, demo_data, runs=tmp_path / "runs", resources=resources)
    assert {path: path.read_bytes() for path in whole} == whole
    assert (left.exists(), growing.exists()) == (False, True)


def test_a_disk_without_room_for_the_cache_is_told_beforehand(
    demo_data: Path, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    with pytest.raises(BoneageError, match=r"needs .* of disk, .* free; .* --cache"):
        train(tiny, demo_data, runs=tmp_path, resources=Resources(cache=tmp_path / "cache"))
    assert not [path.name for path in (tmp_path / "cache").iterdir() if "pixels" in path.name]


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    demo_run: Run, demo_data: Path, tiny: Experiment, tmp_path: Path, start_training: Start
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(demo_run.bundle, weights)
    model = tiny.model.model_copy(update={"weights": str(weights)})
    training = tiny.training.model_copy(update={"epochs": 4})
    experiment = tiny.model_copy(update={"model": model, "training": training})
    process = start_training(experiment, demo_data, tmp_path / "runs")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    weights.unlink()
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    assert resume(folder).epochs == 4


def test_an_answer_that_is_no_number_ends_a_training(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    # The loss of the only step is finite; the weights after it are not.
    update = {"batch_size": 64, "warmup_epochs": 0, "learning_rate": 1e20}
    training = tiny.training.model_copy(update=update)
    with pytest.raises(BoneageError, match="no longer a number in epoch 1"):
        train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path)


def test_the_last_epoch_is_kept_where_that_is_wanted(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    # At this rate the second epoch is worse than the first.
    for keep, rate, epoch in (("best", 3.0, None), ("last", 3.0, 3)):
        update = {"keep": keep, "epochs": 3, "learning_rate": rate, "patience": 2}
        training = tiny.training.model_copy(update=update)
        run = train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path)
        history = pd.read_csv(run.folder / "history.csv")
        assert run.kept_epoch == (epoch or history["val_mae"].argmin() + 1)
        assert load_bundle(run.bundle).metrics["epoch"] == run.kept_epoch
        assert run.evaluation is not None
        kept = history["val_mae"].iloc[run.kept_epoch - 1]
        assert run.evaluation.mae.value == pytest.approx(kept, abs=1e-2)


def test_sgd_may_have_no_momentum(demo_data: Path, tiny: Experiment, tmp_path: Path) -> None:
    update = {"optimiser": "sgd", "betas": (0.0, 0.9), "epochs": 1}
    training = tiny.training.model_copy(update=update)
    assert train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path).epochs


def test_options_choose_views_backbone_and_sex(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    training = tiny.training.model_copy(update={"epochs": 1})
    write_experiment(tiny.model_copy(update={"training": training}), tmp_path / "mine.toml")
    options = "--model carpal --backbone test_efficientnet --no-gender"
    line = f"train -c {tmp_path}/mine.toml --data {demo_data} --runs {tmp_path}/runs {options}"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    model = load_experiment(folder / "settings.toml").model
    assert (model.family, model.backbone, model.gender) == ("carpal", "test_efficientnet", False)


def test_rows_of_batches_count_the_images_that_were_shown(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    # 64 images in batches of 24 are three, none of them of 24.
    update = {"batch_size": 24, "log_every": 1, "epochs": 1}
    training = tiny.training.model_copy(update=update)
    run = train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path)
    table = pd.read_csv(run.folder / "batches.csv")
    images = (table["images_per_second"] * table["seconds"]).round().diff()
    assert len(table) == 3
    assert images.iloc[1:].between(21, 22).all()
    assert round(table["images_per_second"].iloc[-1] * table["seconds"].iloc[-1]) == 64


def test_rows_of_batches_have_the_loss_of_the_epoch_also_if_gradients_are_accumulated(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    training = tiny.training.model_copy(update={"accumulate": 3, "log_every": 1, "epochs": 1})
    run = train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path)
    batches = pd.read_csv(run.folder / "batches.csv")
    (epoch,) = pd.read_csv(run.folder / "history.csv")["train_loss"]
    assert batches["loss"].mean() == pytest.approx(epoch, rel=1e-4)


@pytest.mark.parametrize("stages", [(), ({"training.epochs": 1},)])
def test_a_precision_that_the_device_lacks_is_refused_before_anything_is_made(
    demo_data: Path, tiny: Experiment, tmp_path: Path, stages: tuple[dict[str, Any], ...]
) -> None:
    training = tiny.training.model_copy(update={"precision": "fp16"})
    experiment = tiny.model_copy(update={"training": training, "stages": stages})
    with pytest.raises(BoneageError, match=r"training\.precision = fp16: not available on CPUs"):
        train(experiment, demo_data, runs=tmp_path, resources=Resources(devices="cpu"))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def taken_up(
    demo_data: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path]:
    """A run resumed after a full disk in its second epoch; its first epoch is the best.

    Returned with a copy of the checkpoint as it was before resuming.
    """
    # From the second epoch on, the head's learning rate is far too high.
    update = {"learning_rate": 1e-6, "schedule": "constant", "frozen_epochs": 1}
    training = tiny.training.model_copy(update={**update, "head_fine_tune_rate": 3e6})
    experiment = tiny.model_copy(update={"training": training})
    save, calls = pl.Trainer.save_checkpoint, []

    def of_a_full_disk(self: pl.Trainer, path: Path, *rest: Any, **options: Any) -> None:
        calls.append(path)
        if len(calls) < 2:
            save(self, path, *rest, **options)
        else:
            Path(path).write_bytes(b"PK half of a checkpoint")
            raise OSError(28, "No space left on device")

    folder = tmp_path_factory.mktemp("taken-up") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", of_a_full_disk)
        with pytest.raises(BoneageError, match=f"{folder}: .*No space.*--resume {folder}$"):
            train_into(folder, experiment, RunRecord.new(demo_data))
    left = shutil.copyfile(folder / "last.ckpt", folder.parent / "left.ckpt")
    return resume(folder), left


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(
    taken_up: tuple[Run, Path],
) -> None:
    run, left = taken_up
    assert torch.load(left, weights_only=True)["epoch"] == 0
    assert pd.read_csv(run.folder / "history.csv")["epoch"].tolist() == [1, 2]


def test_a_run_that_is_taken_up_remembers_its_best_epoch(taken_up: tuple[Run, Path]) -> None:
    run, _ = taken_up
    first, second = pd.read_csv(run.folder / "history.csv")["val_mae"]
    assert first < second
    assert run.kept_epoch == 1
    assert load_bundle(run.bundle).metrics["epoch"] == 1
    assert run.evaluation is not None
    assert run.evaluation.mae.value == pytest.approx(first, abs=1e-2)


def test_the_table_of_runs_tells_the_training_errors_of_the_kept_epoch(
    taken_up: tuple[Run, Path],
) -> None:
    run, _ = taken_up
    row = pd.read_csv(run.folder.parent / "summary.csv").iloc[0]
    kept, last = pd.read_csv(run.folder / "history.csv").to_dict("records")
    for name in ("mae", "rmse"):
        assert row[f"train_{name}"] == pytest.approx(kept[f"train_{name}"])
        assert row[f"val_{name}"] == pytest.approx(kept[f"val_{name}"], abs=1e-2)
        assert len({kept[f"train_{name}"], last[f"train_{name}"], kept[f"val_{name}"]}) == 3
    assert (row["best_epoch"], row["stopped_epoch"]) == (1, 2)


def test_the_time_of_a_run_is_that_of_its_epochs_in_seconds(demo_run: Run) -> None:
    history = pd.read_csv(demo_run.folder / "history.csv")
    assert demo_run.seconds == pytest.approx(history["seconds"].sum())
    result = json.loads((demo_run.folder / "result.json").read_text())
    assert result["seconds"] == pytest.approx(demo_run.seconds, abs=0.06)
    table = pd.read_csv(demo_run.folder.parent / "summary.csv")
    row = table[table["save_dir"] == str(demo_run.folder)].iloc[0]
    assert row["total_training_time_s"] == pytest.approx(demo_run.seconds, abs=0.06)
    begun, ended = ((demo_run.folder / n).stat().st_mtime for n in ("settings.toml", "history.csv"))
    assert 0 < history["seconds"].sum() < ended - begun + 0.1
    # Training throughput excludes the time of the validation.
    assert (64 / history["images_per_second"] < history["seconds"]).all()


def test_a_model_is_held_against_the_mean_age_of_what_it_was_trained_on(
    demo_run: Run, demo_data: Path
) -> None:
    ages = {split: read_manifest(demo_data, split)["boneage"] for split in ("train", "validation")}
    figures = json.loads((demo_run.folder / "validation" / "metrics.json").read_text())
    assert figures["baseline"] == pytest.approx(ages["train"].mean())
    apart = (ages["validation"] - ages["train"].mean()).abs().mean()
    assert figures["baseline_mae"] == pytest.approx(apart)
    assert ages["validation"].mean() != pytest.approx(ages["train"].mean())


def test_the_scale_of_ages_is_their_mean_and_standard_deviation() -> None:
    assert mean_and_deviation(pd.Series([100, 140])) == (120, 20)
    # If all ages are equal, the deviation is set to 1 instead of 0.
    assert mean_and_deviation(pd.Series([84, 84, 84])) == (84, 1)


def test_a_model_is_held_against_the_sex_that_is_more_frequent_where_it_was_trained(
    own_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    for split, boys in (("train", 0.75), ("validation", 0.25)):
        table = pd.read_csv(own_data / f"{split}.csv")
        male = np.arange(len(table)) < boys * len(table)
        table.assign(male=male).to_csv(own_data / f"{split}.csv", index=False)
    model = tiny.model.model_copy(update={"targets": ("sex",), "gender": False})
    training = tiny.training.model_copy(update={"epochs": 1})
    run = train(
        tiny.model_copy(update={"model": model, "training": training}), own_data, runs=tmp_path
    )
    assert run.sexes is not None
    assert run.sexes.baseline == 0.25


def test_how_often_intervals_hold_is_written_where_there_are_enough_radiographs(
    own_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    tables = {split: pd.read_csv(own_data / f"{split}.csv") for split in ("train", "validation")}
    # Train and validation splits are swapped, for 64 radiographs to validate on.
    for split, table in zip(tables, reversed(tables.values()), strict=True):
        table.assign(split=split).to_csv(own_data / f"{split}.csv", index=False)
    training = tiny.training.model_copy(update={"epochs": 1})
    run = train(tiny.model_copy(update={"training": training}), own_data, runs=tmp_path)
    found = pd.read_csv(run.folder / "validation" / "coverage.csv").set_index("group")
    assert found.loc["all", "images"] == 64
    assert 0.75 < found.loc["all", "share_held"] <= 1
    calibration = load_bundle(run.bundle).calibration
    assert calibration is not None
    assert calibration.images["all"] == 64


def test_proportions_that_change_are_seen_anew_in_the_same_cache(
    own_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    seen = []
    for size in ({}, {"width": 100, "height": 200}):
        table = pd.read_csv(own_data / "train.csv").assign(**size)
        table.to_csv(own_data / "train.csv", index=False)
        module = BoneAgeData(own_data, tiny, cache)
        module.setup()
        seen.append({split: part.views["hand"] for split, part in module.batches.items()})
    before, after = seen
    assert not np.array_equal(before["train"], after["train"])
    assert np.array_equal(before["validation"], after["validation"])


@pytest.mark.parametrize(
    "update",
    [
        # Weights and predicted months overflow.
        {"learning_rate": 1e12},
        # Predicted months are normal, but squared errors overflow 32-bit floats.
        {"label_noise": 1e25, "loss": "mse"},
    ],
    ids=["months", "loss"],
)
def test_a_loss_that_is_no_number_ends_a_training_with_what_to_do(
    update: dict[str, object], demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    experiment = tiny.model_copy(update={"training": tiny.training.model_copy(update=update)})
    with pytest.raises(BoneageError, match=r"no longer a number in epoch 1; lower training\.learn"):
        train(experiment, demo_data, runs=tmp_path)


def test_a_training_stops_after_as_many_epochs_without_improvement_as_it_is_told(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    # At this rate no weight changes, and a frozen encoder's batch statistics are not updated.
    still = {"epochs": 9, "patience": 2, "learning_rate": 1e-30, "frozen_epochs": 9}
    training = tiny.training.model_copy(update=still)
    run = train(tiny.model_copy(update={"training": training}), demo_data, runs=tmp_path)
    assert pd.read_csv(run.folder / "history.csv")["val_mae"].nunique() == 1
    assert (run.kept_epoch, run.epochs) == (1, 3)


def test_decoded_images_are_kept_where_cache_says(
    own_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    write_experiment(tiny, tmp_path / "tiny.toml")
    line = f"train -c {tmp_path}/tiny.toml --data {own_data} --runs {tmp_path}/runs"
    result = CliRunner().invoke(app, [*line.split(), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "cache").glob("pixels-*.npy"))) == 2
    assert not (own_data / ".cache").exists()


def test_models_of_single_regions_answer_together_with_one_of_the_whole_hand(
    demo_run: Run, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    # As ml-recipe-bone-age averages models that were trained on three regions.
    cases = [Case(path, male=True) for path in read_manifest(demo_data, "test")["path"][:3]]
    bundles = [demo_run.bundle]
    for family, view in (("carpal", "carpal"), ("metacarpal", "metaph")):
        model = tiny.model.model_copy(update={"family": family})
        training = tiny.training.model_copy(update={"epochs": 1})
        experiment = tiny.model_copy(update={"name": family, "model": model, "training": training})
        bundles.append(train(experiment, demo_data, runs=tmp_path).bundle)
        assert load_bundle(bundles[-1]).network().views == (view,)

    def months(*files: Path) -> np.ndarray:
        predictor = Predictor.load(files, "cpu", "32", "torch")
        return np.array([found.months for found in predictor.predict_files(cases, force=True)])

    alone = np.array([months(file) for file in bundles])
    assert np.ptp(alone, axis=0).min() > 0.01
    assert months(*bundles) == pytest.approx(alone.mean(axis=0), abs=1e-3)


def test_more_processes_than_cores_are_refused_on_a_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BoneageError, match="--devices 9999: more processes than CPU cores"):
        accelerator_of("9999")
