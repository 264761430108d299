"""Tests of HDA_Project's YAML settings files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.bundle import build_network
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment, parse_experiment
from boneage_cli.core.hda_project_yaml import (
    WITHOUT_MEANING,
    experiment_values_from_hda_project_yaml,
)
from boneage_cli.errors import BoneageError

CONFIGS = Path(__file__).parents[2] / "configs"

# Every key that HDA_Project reads.
EVERY_KEY = """
data:
  image_size: 256
  clahe: true
  augment: false
  batch_size: 16
roi:
  locator:
    roi_path: "data/cropped_rois"
    pretrained_model_path: "GlobalCNN/GlobalCNN_best.keras"
  extractor:
    roi_size: 128
    heatmap_threshold: 0.25
    save_heatmaps: true
model:
  global_channels: [32, 64, 128]
  global_dense_units: 128
  roi_channels: [32, 64]
  roi_dense_units: 32
  fusion_dense_units: [256, 128]
  dropout_rate: 0.2
  use_gender: true
training:
  epochs: 70
  patience: 10
  learning_rate: 0.0003
  results_csv: "experiments/train_results_summary.csv"
  perform_test: true
"""
GLOBAL_ONLY = "model:\n  global_channels: [16, 24]\n  global_dense_units: 40\n"
ROI_ONLY = (
    "roi:\n  extractor:\n    roi_size: 96\nmodel:\n  roi_channels: [16]\n  roi_dense_units: 48\n"
)


def load(folder: Path, text: str, family: str | None = None) -> tuple[Experiment, list[str]]:
    path = folder / "old settings.yaml"
    path.write_text(text, encoding="utf-8")
    values, notes = experiment_values_from_hda_project_yaml(path, family)
    return parse_experiment(values, path.name), notes


@pytest.mark.parametrize("family", ["global", "roi", "fusion"])
def test_the_same_settings_as_yaml_and_as_toml_are_the_same_experiment(
    family: str, tmp_path: Path
) -> None:
    text = EVERY_KEY
    if family == "global":
        text = text.replace("global_dense_units: 128", "global_dense_units: 64")
    experiment, _ = load(tmp_path, text, family)
    published = load_experiment(CONFIGS / f"s1-{family}.toml")
    networks = [build_network(e, 127.3, 41.2) for e in (experiment, published)]
    assert str(networks[0]) == str(networks[1])
    assert experiment.preprocessing == published.preprocessing
    assert experiment.training == published.training
    assert experiment.augmentation == published.augmentation
    if family != "global":
        assert experiment.regions == published.regions


def test_each_key_without_meaning_here_gets_a_note_and_no_other_does(tmp_path: Path) -> None:
    _, notes = load(tmp_path, EVERY_KEY)
    assert len(notes) == len(WITHOUT_MEANING) == 6
    for key, note in zip(WITHOUT_MEANING, notes, strict=True):
        assert f"old settings.yaml: {key} has no meaning here: " in note
    assert load(tmp_path, GLOBAL_ONLY)[1] == []


@pytest.mark.parametrize(
    ("text", "family"), [(EVERY_KEY, "fusion"), (GLOBAL_ONLY, "global"), (ROI_ONLY, "roi")]
)
def test_without_a_family_the_one_that_the_file_has_settings_for_is_taken(
    text: str, family: str, tmp_path: Path
) -> None:
    assert load(tmp_path, text)[0].model.family == family


@pytest.mark.parametrize(
    ("alias", "family"), [("GlobalCNN", "global"), ("roi_cnn", "roi"), ("fusion", "fusion")]
)
def test_the_family_of_the_command_line_decides_what_is_read(
    alias: str, family: str, tmp_path: Path
) -> None:
    experiment, _ = load(tmp_path, EVERY_KEY, alias)
    assert experiment.model.family == family
    expected = {"global": (128,), "roi": (64,), "fusion": (256, 128)}
    assert experiment.model.hidden == expected[family]


def test_a_wide_region_branch_widens_the_layer_after_it(tmp_path: Path) -> None:
    experiment, _ = load(tmp_path, ROI_ONLY)
    assert experiment.model.branch_hidden == {"carpal": (48,), "metaph": (48,)}
    assert experiment.model.hidden == (96,)
    assert (experiment.regions.height, experiment.regions.width) == (96, 96)


def test_what_is_not_given_has_the_value_of_s1(tmp_path: Path) -> None:
    experiment, notes = load(tmp_path, "")
    assert notes == []
    assert experiment.model.gender is False
    assert experiment.model.dropout == 0.2
    assert experiment.training.learning_rate == 3e-4
    assert experiment.training.patience == 10
    assert experiment.augmentation.enabled is False


def test_a_rate_that_yaml_takes_for_text_is_still_a_number(tmp_path: Path) -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    experiment, _ = load(tmp_path, "training: {learning_rate: 1e-4}")
    assert experiment.training.learning_rate == 1e-4


def test_augment_switches_the_light_augmentation_of_s1_on(tmp_path: Path) -> None:
    augmentation = load(tmp_path, "data: {augment: true}")[0].augmentation
    assert augmentation.enabled
    assert (augmentation.rotate, augmentation.brightness, augmentation.contrast) == (2, 0.02, 0.02)
    assert (augmentation.translate, augmentation.scale, augmentation.gamma) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {epoch: 3}",
            r"unknown setting training\.epoch; did you mean training\.epochs\?",
        ),
        ("roi: {extractor: {zzz: 3}}", r"roi\.extractor\.zzz; known are roi_size, heatmap_thr"),
        ("trainig: {epochs: 3}", r"unknown setting trainig; did you mean training\?"),
        ("training: {epochs: true}", r"training\.epochs: true is not allowed here"),
        ("training: {epochs: 0}", r"training\.epochs: must be at least 1, not 0"),
        ("model: {global_channels: 3}", r"model\.global_channels: must be a list, not 3"),
        ("model: {dropout_rate: 1}", r"model\.dropout_rate: must be less than 1, not 1"),
        ("training: 3", r"training: must be a section of settings, not 3"),
        ("training:", r"training: must be a section of settings, not None"),
        ("- 1\n- 2", r"settings: must be a section of settings, not \[1, 2\]"),
        ("false", r"settings: must be a section of settings, not False"),
        ("data: [", r"not a YAML file: .*line 1"),
        ("data: 2017-13-01", r"not a YAML file: month must be in 1"),
        ("data: !!python/object/apply:os.getcwd []", r"not a YAML file: could not determine"),
    ],
)
def test_what_s1_would_have_ignored_or_crashed_on_is_refused_with_the_reason(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BoneageError, match=r"old settings\.yaml: .*" + message) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_family_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match=r"model\.family: unknown model family 'globl'; did you"):
        load(tmp_path, EVERY_KEY, "globl")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match=r"absent\.yaml: cannot be read"):
        experiment_values_from_hda_project_yaml(tmp_path / "absent.yaml")
    picture = tmp_path / "picture.yaml"
    picture.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(BoneageError, match=r"picture\.yaml: not a YAML file"):
        experiment_values_from_hda_project_yaml(picture)


@settings(deadline=None, max_examples=60)
@given(
    values=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "roi", "model", "training", "locator", "epochs", "clahe"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_yaml_is_either_an_experiment_or_refused_in_one_line(
    values: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    message = "any.yaml: accepted"
    try:
        translated, _ = experiment_values_from_hda_project_yaml(path)
        parse_experiment(translated, str(path))
    except BoneageError as error:
        message = str(error)
    assert "any.yaml: " in message
    assert "\n" not in message


@pytest.mark.parametrize("family", ["fusion", '"fusion"'])
def test_the_family_may_be_set_beside_the_file(family: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("training: {epochs: 3}\n", encoding="utf-8")
    experiment = load_experiment(path, overrides=[f"model.family={family}"])
    assert (experiment.model.family, experiment.training.epochs) == ("fusion", 3)
