"""Tests of run.json, with which a run is resumed on the same data and settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.run_record import Resources, RunRecord
from boneage_cli.datasets.splits import Fold
from boneage_cli.errors import BoneageError


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    resources = Resources(cache=Path("here"), devices="2", nodes=3, wandb="hands")
    record = RunRecord.new(Path("data"), resources, config_file=Path("a.toml"), folds=5)
    assert record.data.is_absolute()
    assert record.cache == Path("here").absolute()
    of_stage = record.of_fold(Fold(2, 5)).of_stage(tmp_path / "a", tmp_path / "b")
    for each in (record, of_stage):
        each.write(tmp_path)
        assert RunRecord.read(tmp_path) == each
    assert of_stage.devices == "2"
    assert of_stage.config_file == Path("a.toml")


def test_work_is_the_same_on_the_same_radiographs_wherever_it_runs() -> None:
    record = RunRecord.new(Path("data"), folds=5)
    assert record.is_of_same_work(RunRecord.new(Path("data"), Resources(devices="2"), folds=5))
    for other in (
        RunRecord.new(Path("others"), folds=5),
        RunRecord.new(Path("data"), folds=4),
        record.of_fold(Fold(1, 5)),
    ):
        assert not record.is_of_same_work(other)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "cannot be read (not a JSON object)"),
        (json.dumps({"devices": "cpu"}), "data: Field required"),
        (json.dumps({"data": "d", "fold": [1]}), "fold.1: Field required"),
    ],
)
def test_a_damaged_record_is_told_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    result = CliRunner().invoke(app, ["train", "--resume", str(tmp_path)])
    assert result.exit_code == 2
    assert "run.json: cannot be read" in result.stderr
    assert said in " ".join(result.stderr.split())
    assert "is this a run folder?" in " ".join(result.stderr.split())


@pytest.mark.parametrize("several", [{"nodes": 2}, {"devices": "2"}, {"devices": "1", "nodes": 2}])
def test_trainings_that_follow_each_other_take_one_device_of_one_machine(
    several: dict[str, object],
) -> None:
    with pytest.raises(BoneageError, match=r"^stages: trains on one device; .*--nodes"):
        Resources(**several).on_one_device("stages")
    assert Resources().on_one_device("stages").devices == "1"
    assert Resources(devices="cpu").on_one_device("stages").devices == "cpu"
