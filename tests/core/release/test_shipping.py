"""Tests of the model shipped with the package and of its model card."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.config import AugmentationSettings, Experiment
from boneage_cli.core.prediction.cases import REASONS, Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.release.card import model_card
from boneage_cli.core.release.shipping import WEAKNESSES, ship
from boneage_cli.core.runs import SHIPPED_MODEL
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.errors import BoneageError
from boneage_cli.json_files import read_json
from boneage_cli.models.pretrained import load_pretrained

CARD = SHIPPED_MODEL.with_suffix(".md")


def mae_of_card(card: str) -> str:
    """Returns the overall MAE of the card's table of errors, with its interval."""
    found = re.search(r"^\| all \| [\d,]+ \| ([\d.]+ \([\d.]+ to [\d.]+\)) \|", card, re.MULTILINE)
    assert found, card
    return found[1]


def test_the_card_is_that_of_the_file_beside_it() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest() in card
    assert card == model_card(load_bundle(SHIPPED_MODEL), WEAKNESSES)


def test_the_package_s_model_is_small_and_can_give_intervals_and_refuse() -> None:
    bundle = load_bundle(SHIPPED_MODEL)
    assert SHIPPED_MODEL.stat().st_size < 16e6
    assert bundle.calibration is not None
    assert bundle.likeness is not None


@pytest.mark.parametrize(
    "words",
    ["not a medical device", "Research only", "Halabi", "no redist", "weights for research only"],
)
def test_the_card_says_what_the_model_is_not_for_and_whose_data_it_saw(words: str) -> None:
    assert words in CARD.read_text(encoding="utf-8")


def test_the_card_s_figures_are_those_that_evaluate_prints(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zips = [str(shared_data / f"rsna-train-299-{part}.zip") for part in "ab"]
    names = ("boneage-training-dataset.csv", "native-size.csv")
    tables = [str(shared_data / name) for name in names]
    fetched = CliRunner().invoke(app, ["fetch", "local", *zips, *tables, "--to", "rsna"])
    assert fetched.exit_code == 0, fetched.output
    line = ["evaluate", "--data", "rsna", "--split", "validation", "--device", "cpu"]
    result = CliRunner().invoke(app, [*line, "--precision", "32", "--output", "figures"])
    assert result.exit_code == 0, result.output
    card = CARD.read_text(encoding="utf-8")
    assert f"MAE        {mae_of_card(card)} months" in result.stdout
    figures = read_json(Path("figures/metrics.json"))
    for group in (*figures["by_sex"].values(), *figures["by_age"].values()):
        mae = group["mae"]
        assert f"{mae['value']:.2f} ({mae['low']:.2f} to {mae['high']:.2f})" in card


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("RG1_UNCR.dcm", "a chest film"),
        ("RG3_UNCR.dcm", "a lower leg"),
        ("693_UNCR.dcm", "a head, computed tomography"),
        ("MR2_UNCR.dcm", "a shoulder, magnetic resonance"),
        ("US1_UNCR.dcm", "ultrasound"),
    ],
)
def test_images_of_other_parts_and_other_machines_are_refused(name: str, what: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    (found,) = Predictor.load([SHIPPED_MODEL], device="cpu").predict_files([Case(str(path), True)])
    assert found.months is None, what
    assert found.reason in REASONS


def test_shipping_measures_what_it_ships(demo_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    ship(demo_run.folder, path)
    bundle = load_bundle(path)
    assert path.stat().st_size < demo_run.bundle.stat().st_size
    assert bundle.metrics["validation"]["images"] == 16
    value = bundle.metrics["validation"]["mae"]["value"]
    # 16-bit weights hardly change the ages.
    assert demo_run.evaluation is not None
    assert value == pytest.approx(demo_run.evaluation.mae.value, abs=0.05)
    assert f"{value:.2f} (" in mae_of_card(path.with_suffix(".md").read_text(encoding="utf-8"))


def test_a_run_whose_settings_were_edited_is_not_shipped(demo_run: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(demo_run.folder, run)
    settings = (run / "settings.toml").read_text()
    (run / "settings.toml").write_text(settings.replace("height = 64", "height = 72"))
    with pytest.raises(BoneageError, match=r"settings\.toml: was edited after the run began"):
        ship(run, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_the_card_names_the_stages_that_came_before(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    stage = {"preprocessing.height": 48, "preprocessing.width": 40, "training.epochs": 1}
    copies = AugmentationSettings(degraded=0.25)
    experiment = tiny.model_copy(update={"stages": (stage,), "augmentation": copies})
    run = train(experiment, demo_data, runs=tmp_path / "runs")
    path = tmp_path / "model.safetensors"
    ship(run.folder, path)
    assert load_bundle(path).provenance["seconds"] == pytest.approx(run.seconds, abs=0.1)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "The weights are the average" not in card
    copies_of = "25% of the radiographs as degraded copies"
    assert f"- Stage 1: 1 epoch on images of 48 × 40 pixels, {copies_of}\n" in card
    assert f"- Stage 2: 2 epochs on images of 64 × 56 pixels, {copies_of}\n" in card


def test_weights_are_blended_with_those_of_the_stage_before(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    staged = tiny.model_copy(update={"stages": ({"training.epochs": 1},)})
    run = train(staged, demo_data, runs=tmp_path / "runs")
    path = tmp_path / "model.safetensors"
    ship(run.folder, path, blend=0.25)
    before, after = (
        load_bundle(run.folder / part / "best.safetensors") for part in ("stage-1", "")
    )
    for name, value in load_bundle(path).weights.items():
        if value.is_floating_point():
            expected = 0.75 * before.weights[name].float() + 0.25 * after.weights[name].float()
            assert torch.allclose(value.float(), expected, rtol=2e-3, atol=1e-3), name
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "after the last stage (25%) and after the one before it (75%)" in card


def test_a_run_without_stages_has_nothing_to_be_blended_with(demo_run: Run, tmp_path: Path) -> None:
    with pytest.raises(BoneageError, match="--blend: the run has no earlier stage"):
        ship(demo_run.folder, tmp_path / "model.safetensors", blend=0.5)
    assert not list(tmp_path.iterdir())


def test_a_teacher_is_on_the_card_and_not_blended_with(
    demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    training = tiny.training.model_copy(update={"teacher": 1, "anew": True})
    stage = {"model.backbone": "test_efficientnet", "training.epochs": 1}
    experiment = tiny.model_copy(update={"training": training, "stages": (stage,)})
    run = train(experiment, demo_data, runs=tmp_path / "runs")
    path = tmp_path / "model.safetensors"
    with pytest.raises(BoneageError, match="the last stage continues no other"):
        ship(run.folder, path, blend=0.5)
    assert not path.exists()
    ship(run.folder, path)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    images = "on images of 64 × 56 pixels"
    assert f"- Stage 1: 1 epoch {images}, backbone test_efficientnet\n" in card
    taught = "ages predicted by stage 1 as 50% of the target"
    assert f"- Stage 2: 2 epochs {images}, {taught}\n" in card


@pytest.fixture(scope="module")
def other_run(demo_data: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of another network with the same inputs as the tiny one."""
    model = tiny.model.model_copy(update={"channels": (4, 12)})
    experiment = tiny.model_copy(update={"name": "other", "model": model})
    return train(experiment, demo_data, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def mean_model(demo_run: Run, other_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model that predicts the mean age of two models."""
    path = tmp_path_factory.mktemp("mean") / "mean.safetensors"
    ship(other_run.folder, path, beside=demo_run.bundle)
    return path


def test_a_mean_of_two_networks_is_one_model(
    mean_model: Path, demo_run: Run, other_run: Run, demo_data: Path
) -> None:
    cases = [Case(str(path), male=True) for path in sorted((demo_data / "test").glob("*.png"))[:6]]

    def ages(*models: Path) -> list[float | None]:
        predictor = Predictor.load(models, device="cpu", precision="32")
        return [found.months for found in predictor.predict_files(cases, force=True)]

    both = ages(demo_run.bundle, other_run.bundle)
    # 16-bit weights hardly change the ages.
    assert ages(mean_model) == pytest.approx(both, abs=0.1)
    assert ages(demo_run.bundle) != pytest.approx(both, abs=0.5)
    # It was evaluated as one model; 16 radiographs are too few for intervals.
    assert load_bundle(mean_model).metrics["validation"]["images"] == 16
    assert load_bundle(mean_model).calibration is None


def test_what_a_mean_refuses_is_what_its_first_network_refuses(
    mean_model: Path, demo_run: Run
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 56), np.uint8)
    features = [
        Predictor.load(model, device="cpu", precision="32").runners[0](pixels, np.ones(3))[1]
        for model in (mean_model, demo_run.bundle)
    ]
    assert features[0] == pytest.approx(features[1], abs=0.02)
    ours, first = load_bundle(mean_model).likeness, load_bundle(demo_run.bundle).likeness
    assert (ours is None) == (first is None)
    if ours is not None and first is not None:
        assert ours.score(features[0]) == pytest.approx(first.score(features[1]), rel=0.05)


def test_the_card_of_a_mean_names_both(mean_model: Path) -> None:
    card = mean_model.with_suffix(".md").read_text(encoding="utf-8")
    assert "small_cnn and small_cnn, whose ages are averaged" in card
    assert "| recipe of tiny | `configs/tiny.toml`" in card
    assert "| recipe of other | `configs/other.toml`" in card
    assert "## Training of tiny\n\n- 2 epochs" in card


def test_a_mean_is_explained_and_exported_like_any_model(
    mean_model: Path, demo_data: Path, tmp_path: Path
) -> None:
    image = str(sorted((demo_data / "test").glob("*.png"))[0])
    line = ["predict", image, "--sex", "M", "--force", "--model", str(mean_model)]
    result = CliRunner().invoke(app, [*line, "--explain", str(tmp_path / "pictures")])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1
    exported = tmp_path / "mean.xml"
    line = ["export", "--model", str(mean_model), "--format", "openvino", "-o", str(exported)]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert exported.exists()


def test_a_training_can_begin_with_either_network_of_a_mean(
    mean_model: Path, other_run: Run
) -> None:
    bundle = load_bundle(other_run.bundle)
    network = build_network(bundle.experiment, 100, 40)
    said = load_pretrained(network, str(mean_model))
    assert "network 2 of 2" in str(said)
    for name, value in network.state_dict().items():
        assert torch.allclose(value.float(), bundle.weights[name].float(), rtol=2e-3, atol=1e-3), (
            name
        )


def test_only_models_that_see_the_same_are_averaged_as_one(
    demo_data: Path, demo_run: Run, mean_model: Path, tiny: Experiment, tmp_path: Path
) -> None:
    seen = tiny.preprocessing.model_copy(update={"height": 48})
    run = train(tiny.model_copy(update={"preprocessing": seen}), demo_data, runs=tmp_path / "runs")
    path = tmp_path / "model.safetensors"
    with pytest.raises(BoneageError, match="does not see what"):
        ship(run.folder, path, beside=demo_run.bundle)
    with pytest.raises(BoneageError, match="is itself an average"):
        ship(demo_run.folder, path, beside=mean_model)
    assert not path.exists()


def test_a_model_without_figures_gets_no_card(demo_bundle: Path) -> None:
    bundle = load_bundle(demo_bundle)
    bundle.metrics.pop("validation")
    with pytest.raises(BoneageError, match="no validation figures"):
        model_card(bundle)


def test_the_card_says_where_ages_are_too_high_or_too_low(demo_bundle: Path) -> None:
    bundle = load_bundle(demo_bundle)
    groups = bundle.metrics["validation"]["by_age"]
    for group in groups.values():
        group["images"] = 100
    groups["5–10 years"]["bias"] = {"value": 2.04, "low": 0.1, "high": 4.0}
    groups["10–15 years"]["bias"] = {"value": 0.5, "low": -1.0, "high": 2.0}
    groups["15 years and more"]["bias"] = {"value": -3.4, "low": -5.0, "high": -1.7}
    card = model_card(bundle, ["Few children."])
    assert "- Known age 5–10 years: predicted 2.0 months too old on average." in card
    assert "- Known age 15 years and more: predicted 3.4 months too young on average." in card
    assert "10–15 years: predicted" not in card
    groups["15 years and more"]["images"] = 3
    assert "15 years and more: predicted" not in model_card(bundle)
