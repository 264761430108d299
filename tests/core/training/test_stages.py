"""Promises about trainings that come before the training itself."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import earlier_stages, load_experiment, write_experiment
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import resume, train, train_into
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.json_files import read_json

Start = Callable[..., subprocess.Popen[str]]

# Fewer pixels first; keys may have dots or be tables.
STAGES = (
    {"preprocessing": {"height": 48, "width": 40}, "training": {"learning_rate": 1e-2}},
    {"training.epochs": 1, "training.learning_rate": 1e-2, "augmentation.flip": 0.0},
)


@pytest.fixture(scope="module")
def staged(tiny: Experiment) -> Experiment:
    """The tiny network after two stages; its own training hardly moves it."""
    still = tiny.training.model_copy(
        update={"learning_rate": 1e-9, "warmup_epochs": 0, "epochs": 1}
    )
    return tiny.model_copy(update={"training": still, "stages": STAGES})


@pytest.fixture(scope="module")
def run(staged: Experiment, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(staged, demo_data, runs=tmp_path_factory.mktemp("runs"))


def kernels(folder: Path) -> dict[str, torch.Tensor]:
    weights = load_bundle(folder / "best.safetensors").weights
    return {name: weight for name, weight in weights.items() if weight.ndim == 4}


def test_each_stage_trains_with_what_it_says_and_the_rest_as_it_is(run: Run) -> None:
    first, second = (load_experiment(run.folder / f"stage-{n}" / "settings.toml") for n in (1, 2))
    assert (first.preprocessing.height, first.preprocessing.width) == (48, 40)
    assert (second.preprocessing.height, second.preprocessing.width) == (64, 56)
    assert (first.augmentation.flip, second.augmentation.flip) == (0.5, 0.0)
    assert first.training.batch_size == second.training.batch_size == 16
    assert not first.stages


def test_a_stage_begins_with_what_the_one_before_has_learnt(
    staged: Experiment, run: Run, demo_data: Path, tmp_path: Path
) -> None:
    learnt = kernels(run.folder / "stage-2")
    for name, weight in kernels(run.folder).items():
        torch.testing.assert_close(weight, learnt[name], rtol=0, atol=1e-5)
    alone = train(staged.model_copy(update={"stages": ()}), demo_data, runs=tmp_path)
    assert any(
        (weight - learnt[name]).abs().max() > 1e-3 for name, weight in kernels(alone.folder).items()
    )


def test_the_time_of_the_stages_counts(run: Run) -> None:
    seconds = [pd.read_csv(path)["seconds"].sum() for path in run.folder.rglob("history.csv")]
    assert len(seconds) == 3
    assert read_json(run.folder / "result.json")["seconds"] == pytest.approx(sum(seconds), abs=0.3)


def test_settings_with_stages_are_read_back(staged: Experiment, tmp_path: Path) -> None:
    write_experiment(staged, tmp_path / "settings.toml")
    assert load_experiment(tmp_path / "settings.toml") == staged


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("[{training = {epoch = 2}}]", "stage 1: unknown setting training.epoch; did you mean"),
        ("[{}, {training = {epochs = 0}}]", "stage 2: training.epochs"),
        ("[{epochs = 2}]", "did you mean training.epochs"),
        ("[{training = {seed = 1}}]", "stage 1: training.seed, data.sex and whether sex matters"),
        ('[{data = {sex = "F"}}]', "which radiographs are held out"),
        ("[{model = {gender = false}}]", "which radiographs are held out"),
        ('[{model = {weights = "none"}}]', "set model.weights in [model] only"),
    ],
)
def test_what_is_wrong_with_a_stage_is_said_before_anything_is_trained(
    setting: str, message: str
) -> None:
    with pytest.raises(BoneageError) as caught:
        load_experiment(overrides=[f"stages={setting}"])
    assert message in str(caught.value)


def test_a_stage_replaces_a_table_as_a_whole() -> None:
    experiment = load_experiment(
        overrides=[
            'training.loss="huber"',
            "training.loss_options={delta = 10}",
            'stages=[{training = {loss = "mae", loss_options = {}}}]',
        ]
    )
    (stage,) = earlier_stages(experiment)
    assert (stage.training.loss, stage.training.loss_options) == ("mae", {})


def test_a_stage_that_the_next_cannot_take_up_is_refused_before_anything_is_trained(
    staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    other = staged.model_copy(update={"stages": ({"model.channels": [8, 8]},)})
    with pytest.raises(BoneageError, match=r"stage 1: .* weights of the encoder of view hand"):
        train(other, demo_data, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_starts_anew_after_a_stage_is_said(
    staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    other = staged.model_copy(update={"stages": ({"model.hidden": [8]},)})
    with pytest.warns(UserWarning, match="tiny: .* from stage 1; untrained: the head"):
        train(other, demo_data, runs=tmp_path)


def test_what_starts_anew_beside_another_model_s_weights_is_said(
    run: Run, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    write_experiment(tiny, tmp_path / "settings.toml")
    line = f"train -c {tmp_path}/settings.toml --data {demo_data} --weights {run.bundle}"
    for setting, count in (("model.hidden=[8]", 1), ("model.dropout=0", 0)):
        result = CliRunner().invoke(app, [*line.split(), "--set", setting, "--runs", str(tmp_path)])
        assert result.exit_code == 0, result.output
        said = f"warning: tiny: the encoder of hand from {run.bundle}; untrained: the head\n"
        assert result.stderr.count("warning") == result.stderr.count(said) == count


def test_a_run_folder_as_initial_weights_is_its_model(
    run: Run, staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    still = staged.model_copy(update={"stages": ()})
    write_experiment(still, tmp_path / "settings.toml")
    line = f"train -c {tmp_path}/settings.toml --data {demo_data} --weights {run.folder}"
    result = CliRunner().invoke(app, [*line.split(), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    (again,) = (tmp_path / "runs").glob("*-tiny")
    assert load_experiment(again / "settings.toml").model.weights == str(run.bundle)
    expected = kernels(run.folder)
    for name, weight in kernels(again).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)


def test_a_folder_without_a_model_is_refused_as_initial_weights(
    demo_data: Path, tmp_path: Path
) -> None:
    line = f"train --data {demo_data} --weights {tmp_path} --runs {tmp_path}/runs"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert f"model.weights: no best.safetensors in {tmp_path}" in " ".join(result.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_no_stage_sees_what_its_fold_holds_out(
    staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    write_experiment(staged, tmp_path / "settings.toml")
    line = f"train -c {tmp_path}/settings.toml --data {demo_data} --folds 2 --runs {tmp_path}/runs"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    assert result.stdout.count("tiny-stage-1: 48 × 40 pixels, 1 epoch\n") == 2
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    for fold in ("fold-1", "fold-2"):
        held_out, *stages = (
            set(pd.read_csv(folder / fold / stage / "validation" / "predictions.csv")["image_id"])
            for stage in ("", "stage-1", "stage-2")
        )
        assert all(stage == held_out for stage in stages)


def test_a_training_that_was_killed_goes_on_and_trains_no_stage_twice(
    staged: Experiment, run: Run, demo_data: Path, tmp_path: Path, start_training: Start
) -> None:
    process = start_training(staged, demo_data, tmp_path / "runs", until="tiny-stage-2")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (tmp_path / "runs").glob("*-tiny")
    finished = (folder / "stage-1" / "history.csv").stat().st_mtime_ns
    assert not (folder / "result.json").exists()

    # It may have been moved to another disk since.
    folder = (tmp_path / "runs").rename(tmp_path / "moved") / folder.name
    again = CliRunner().invoke(app, ["train", "--resume", str(folder)])
    assert again.exit_code == 0, again.output
    assert "tiny-stage-1" not in again.stdout
    assert (folder / "stage-1" / "history.csv").stat().st_mtime_ns == finished
    expected = kernels(run.folder)
    for name, weight in kernels(folder).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


def test_an_interrupt_between_two_stages_says_how_to_go_on(
    staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    def stop_at_the_last(stage: Experiment) -> None:
        if stage.name == staged.name:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"go on with: boneage train --resume .*run$"):
        train_into(tmp_path / "run", staged, RunRecord.new(demo_data), begin=stop_at_the_last)
    finished = (tmp_path / "run" / "stage-2" / "history.csv").stat().st_mtime_ns
    assert resume(tmp_path / "run").evaluation
    assert (tmp_path / "run" / "stage-2" / "history.csv").stat().st_mtime_ns == finished


def test_stages_and_several_devices_exclude_each_other(
    staged: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BoneageError, match="stages: trains on one device"):
        train(staged, demo_data, runs=tmp_path, resources=Resources(devices="2"))
    assert not list(tmp_path.iterdir())
