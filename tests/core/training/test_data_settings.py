"""Tests of the choice of training radiographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.config import AugmentationSettings, DataSettings, Experiment
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.datamodule import BoneAgeData
from boneage_cli.core.training.run import train
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.splits import Fold, choose
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.imaging.reading import read_radiograph


def of(experiment: Experiment, **data: object) -> Experiment:
    return experiment.model_copy(update={"data": DataSettings(**data)})


def test_a_stated_number_of_training_images_leaves_validation_whole(
    tiny: Experiment, demo_data: Path
) -> None:
    data = BoneAgeData(demo_data, of(tiny, train_images=20))
    assert len(data.train_manifest) == 20
    assert len(data.validation_manifest) == 16


def test_the_choice_of_radiographs_does_not_depend_on_the_seed_of_the_training(
    tiny: Experiment, demo_data: Path
) -> None:
    fewer = of(tiny, train_images=20, validation_images=6)
    seeds = [
        fewer.model_copy(update={"training": tiny.training.model_copy(update={"seed": seed})})
        for seed in (42, 7)
    ]
    first, second = (BoneAgeData(demo_data, each) for each in seeds)
    assert first.train_manifest["id"].tolist() == second.train_manifest["id"].tolist()
    assert first.validation_manifest["id"].tolist() == second.validation_manifest["id"].tolist()
    # Figures in the documentation are of this choice.
    documented = choose(read_manifest(demo_data, "train"), 20, seed=42)
    assert first.train_manifest["id"].tolist() == documented["id"].tolist()


def test_more_images_than_there_are_is_refused(tiny: Experiment, demo_data: Path) -> None:
    with pytest.raises(BoneageError, match="500 of 64 radiographs"):
        BoneAgeData(demo_data, of(tiny, train_images=500))


def test_a_trial_can_measure_on_fewer_radiographs(tiny: Experiment, demo_data: Path) -> None:
    fewer = of(tiny, validation_images=6)
    data = BoneAgeData(demo_data, fewer)
    assert len(data.train_manifest) == 64
    assert len(data.validation_manifest) == 6
    assert data.validation_manifest["male"].sum() == 3
    assert set(data.validation_manifest["id"]) <= set(read_manifest(demo_data, "validation")["id"])
    with pytest.raises(BoneageError, match="--folds measures on all"):
        BoneAgeData(demo_data, fewer, fold=Fold(1, 2))


def test_a_model_of_girls_trains_on_girls_and_answers_for_no_boy(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    data = BoneAgeData(demo_data, of(tiny, sex="F"))
    assert not data.train_manifest["male"].any()
    assert not data.validation_manifest["male"].any()

    predictor = Predictor.load([train(of(tiny, sex="F"), demo_data, runs=tmp_path).bundle])
    path = read_manifest(demo_data, "test")["path"].iloc[0]
    girl, boy = predictor.predict_files([Case(path, False), Case(path, True)])
    assert girl.months is not None
    assert boy.months is None
    assert boy.error == "a model of girls alone (data.sex); choose another --model"
    with pytest.raises(BoneageError, match="girls alone"):
        predictor.predict([read_radiograph(path)], [True])


@pytest.mark.parametrize("fold", [None, Fold(2, 4)])
def test_worse_copies_are_those_of_the_training_radiographs(
    fold: Fold | None, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    degraded = tiny.model_copy(update={"augmentation": AugmentationSettings(degraded=0.5)})
    plain, copied = (BoneAgeData(demo_data, each, tmp_path, fold) for each in (tiny, degraded))
    plain.setup()
    copied.setup("fit")
    rows = list(range(len(plain.train_manifest)))
    copies = [row + len(rows) for row in rows]
    expected, seen, worse = (
        plain.batches["train"][rows],
        copied.batches["train"][rows],
        copied.batches["train"][copies],
    )
    assert torch.equal(seen["hand"], expected["hand"])
    assert torch.equal(worse["age"], expected["age"])
    near = np.array(
        [
            np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]
            for a, b in zip(worse["hand"], expected["hand"], strict=True)
        ]
    )
    assert (near < 0.9999).mean() > 0.8, "copies are worse"
    assert np.median(near) > 0.7, "copies are of the same hands"
    held_out = list(range(len(plain.validation_manifest)))
    for name, values in plain.batches["validation"][held_out].items():
        assert torch.equal(values, copied.batches["validation"][held_out][name])
    with_copies = {row for batch in copied.train_dataloader().sampler for row in batch}
    assert with_copies & set(copies)
    assert with_copies & set(rows)


@pytest.mark.parametrize("model", [{"gender": True}, {"gender": False, "targets": ("age", "sex")}])
def test_children_of_unknown_sex_are_left_out_where_sex_matters(
    model: dict[str, object], tiny: Experiment, own_data: Path
) -> None:
    table = pd.read_csv(own_data / "train.csv", dtype=str)
    table.loc[:2, "male"] = ""
    table.to_csv(own_data / "train.csv", index=False)
    settings = tiny.model_copy(update={"model": tiny.model.model_copy(update=model)})
    with pytest.warns(BoneageWarning, match="^split train: left out 3 without a sex, of 64 radio"):
        data = BoneAgeData(own_data, settings)
    assert len(data.train_manifest) == 61


def test_impossible_ages_are_left_out(tiny: Experiment, own_data: Path) -> None:
    table = pd.read_csv(own_data / "train.csv")
    table.loc[:3, "boneage"] = [126500, -5, 0, 240]
    table.to_csv(own_data / "train.csv", index=False)
    with pytest.warns(BoneageWarning, match="left out 3 without a bone age of 0 to 240 months"):
        data = BoneAgeData(own_data, tiny)
    assert data.train_manifest["boneage"].max() == 240
    assert len(data.train_manifest) == 61


def test_ages_in_years_are_told_before_a_training(tiny: Experiment, own_data: Path) -> None:
    for split in ("train", "validation"):
        table = pd.read_csv(own_data / f"{split}.csv")
        table.assign(boneage=table["boneage"] / 12).to_csv(own_data / f"{split}.csv", index=False)
    with pytest.warns(BoneageWarning, match="look like years; give months"):
        BoneAgeData(own_data, tiny)


def test_a_model_of_girls_is_measured_on_girls(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    run = train(of(tiny, sex="F"), demo_data, runs=tmp_path)
    line = f"evaluate -m {run.folder} -d {demo_data} --split test -o {tmp_path}/out"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    table = read_manifest(demo_data, "test")
    told = " ".join(result.stderr.split())
    assert f"{table['male'].sum()} radiographs left out: a model of girls alone" in told
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["images"] == (~table["male"]).sum()
    train_split = read_manifest(demo_data, "train")
    girls = train_split[~train_split["male"].astype(bool)]["boneage"].mean()
    assert figures["baseline"] == pytest.approx(girls)
