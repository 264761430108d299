"""Promises about which radiographs are trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from boneage_cli.core.cases import Case
from boneage_cli.core.config import DataSettings, Experiment
from boneage_cli.core.datamodule import BoneAgeData
from boneage_cli.core.prediction import Predictor
from boneage_cli.core.training import train
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph


def of(experiment: Experiment, **data: object) -> Experiment:
    return experiment.model_copy(update={"data": DataSettings(**data)})


def test_a_stated_number_of_training_images_leaves_validation_whole(
    tiny: Experiment, demo_data: Path
) -> None:
    data = BoneAgeData(demo_data, of(tiny, train_images=20))
    assert len(data.train_manifest) == 20
    assert len(data.validation_manifest) == 16


def test_more_images_than_there_are_is_refused(tiny: Experiment, demo_data: Path) -> None:
    with pytest.raises(BoneageError, match="500 of 64 radiographs"):
        BoneAgeData(demo_data, of(tiny, train_images=500))


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


@pytest.mark.parametrize("model", [{"gender": True}, {"gender": False, "targets": ("age", "sex")}])
def test_children_of_unknown_sex_are_left_out_where_sex_matters(
    model: dict[str, object], tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(demo_data, folder, ignore=shutil.ignore_patterns(".cache"))
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[:2, "male"] = ""
    table.to_csv(folder / "train.csv", index=False)
    data = BoneAgeData(
        folder, tiny.model_copy(update={"model": tiny.model.model_copy(update=model)})
    )
    assert len(data.train_manifest) == 61
