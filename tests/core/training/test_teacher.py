"""Tests of stages that are the teacher of a later one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.config import Experiment, TrainingSettings
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import BUNDLE, CHECKPOINT, TEACHER
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import resume, train
from boneage_cli.datasets.manifest import read_manifest, true_aspects
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.json_files import read_json

# The teacher has fewer pixels and another backbone, so only its ages can be used.
TEACHER_STAGE = {
    "model.backbone": "test_efficientnet",
    "preprocessing": {"height": 48, "width": 40},
    "training.learning_rate": 1e-2,
}


NO_EARLIER_STAGE = "must be the number of an earlier stage, of which there"


def taught(tiny: Experiment, **training: object) -> Experiment:
    training = {"teacher": 1, "teacher_share": 1.0, "anew": True} | training
    return tiny.model_copy(
        update={
            "training": tiny.training.model_copy(update=training),
            "stages": (TEACHER_STAGE,),
        }
    )


@pytest.fixture(scope="module")
def run(tiny: Experiment, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(taught(tiny), demo_data, runs=tmp_path_factory.mktemp("runs"))


def test_the_ages_that_are_learnt_are_those_that_the_stage_predicts(
    run: Run, demo_data: Path
) -> None:
    kept = pd.read_csv(run.folder / TEACHER, dtype={"id": str})
    manifest = read_manifest(demo_data, "train")
    assert kept["id"].tolist() == manifest["id"].tolist()
    predictor = Predictor.load([run.folder / "stage-1" / BUNDLE], "cpu")
    for row in (0, len(manifest) - 1):
        radiograph = read_radiograph(manifest["path"][row], aspect=true_aspects(manifest)[row])
        (months,) = predictor.predict([radiograph], [bool(manifest["male"][row])])
        assert kept["months"][row] == pytest.approx(months, abs=0.01)


def test_the_loss_is_of_the_teacher_s_ages_and_the_error_of_the_children_s(
    run: Run, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    history = pd.read_csv(run.folder / "history.csv")
    assert (history["train_loss"] - history["train_mae"]).abs().min() > 0.1
    assert history["val_loss"].tolist() == pytest.approx(history["val_mae"].tolist())
    alone = pd.read_csv(train(tiny, demo_data, runs=tmp_path).folder / "history.csv")
    assert alone["train_loss"].tolist() == pytest.approx(alone["train_mae"].tolist())


def test_a_teacher_of_hardly_any_share_changes_hardly_anything(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    run = train(taught(tiny, teacher_share=1e-6), demo_data, runs=tmp_path)
    history = pd.read_csv(run.folder / "history.csv")
    assert history["train_loss"].tolist() == pytest.approx(history["train_mae"].tolist(), abs=1e-3)


def test_the_target_is_so_much_of_the_teacher_s_age_and_the_rest_of_the_child_s(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    data = BoneAgeData(demo_data, tiny, tmp_path)
    data.setup()
    train = data.batches["train"]
    assert torch.equal(train[[0, 1]]["target"], train[[0, 1]]["age"])
    train.teach(np.full(len(train), 100.0), 0.25)
    batch = train[[0, 1]]
    torch.testing.assert_close(batch["target"], 0.75 * batch["age"] + 25)


def test_a_network_that_begins_anew_does_so_as_it_would_without_the_stages(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    still = taught(tiny, learning_rate=1e-9, epochs=1, warmup_epochs=0)
    learnt = load_bundle(train(still, demo_data, runs=tmp_path).bundle)
    torch.manual_seed(tiny.training.seed)
    fresh = build_network(tiny, learnt.age_mean, learnt.age_std).state_dict()
    kernels = [name for name, weight in fresh.items() if weight.ndim == 4]
    assert kernels
    for name in kernels:
        torch.testing.assert_close(learnt.weights[name], fresh[name], rtol=0, atol=1e-5)


def test_a_run_that_goes_on_has_the_same_teacher(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    first = train(taught(tiny, epochs=1, warmup_epochs=0), demo_data, runs=tmp_path)
    expected = load_bundle(first.bundle).weights
    ages = (first.folder / TEACHER).stat().st_mtime_ns
    (first.folder / CHECKPOINT).unlink()
    again = load_bundle(resume(first.folder).bundle).weights
    assert (first.folder / TEACHER).stat().st_mtime_ns == ages
    for name, weight in again.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


def test_each_fold_has_a_teacher_of_its_own(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    from boneage_cli.core.training.folds import cross_validate

    folder = cross_validate(
        taught(tiny, epochs=1, warmup_epochs=0), demo_data, 2, runs=tmp_path
    ).folder
    for fold in ("fold-1", "fold-2"):
        held_out = pd.read_csv(folder / fold / "validation" / "predictions.csv")["image_id"]
        learnt = pd.read_csv(folder / fold / TEACHER)["id"]
        assert not set(held_out.astype(str)) & set(learnt.astype(str))
        stage = read_json(folder / fold / "stage-1" / "run.json")
        assert stage["fold"] == read_json(folder / fold / "run.json")["fold"]


def test_a_stage_that_is_taught_goes_on_from_the_one_before_unless_it_is_to_begin_anew(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BoneageError, match=r"another one begins with training\.anew = true"):
        train(taught(tiny, anew=False), demo_data, runs=tmp_path)
    assert not list(tmp_path.iterdir())
    stages = ({"training.learning_rate": 1e-2},)
    still = taught(tiny, anew=False, learning_rate=1e-9, epochs=1, warmup_epochs=0)
    folder = train(still.model_copy(update={"stages": stages}), demo_data, runs=tmp_path).folder
    before, after = (load_bundle(folder / part / BUNDLE).weights for part in ("stage-1", ""))
    for name in (name for name, weight in before.items() if weight.ndim == 4):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-5)


def test_only_what_begins_anew_may_have_other_weights_than_the_stage_before(
    tiny: Experiment,
) -> None:
    values = taught(tiny).model_dump(mode="json")
    values["stages"] = [{"model.weights": "imagenet"}]
    assert parse_experiment(values, "tiny").stages
    values["training"]["anew"] = False
    with pytest.raises(BoneageError, match=r"stage 1 has other model\.weights"):
        parse_experiment(values, "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": ()},
            f"tiny: training.teacher = 1 {NO_EARLIER_STAGE} are none",
        ),
        (
            {"stages": ({"training.teacher": 1},)},
            f"tiny-stage-1: training.teacher = 1 {NO_EARLIER_STAGE} are none",
        ),
        (
            {"stages": ({}, {"training.teacher": 2})},
            f"tiny-stage-2: training.teacher = 2 {NO_EARLIER_STAGE} is 1",
        ),
        (
            {"training": TrainingSettings(anew=True), "stages": ({},)},
            "tiny: training.anew without a teacher leaves nothing of the stages before; name one "
            "in training.teacher, or train it by itself",
        ),
        (
            {"stages": ({"model.targets": ["sex"], "model.gender": False},)},
            "tiny: training.teacher is for ages; model.targets has none",
        ),
    ],
)
def test_a_teacher_that_cannot_be_is_refused_before_anything_is_trained(
    changes: dict[str, object], message: str, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BoneageError) as caught:
        train(taught(tiny).model_copy(update=changes), demo_data, runs=tmp_path)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())
