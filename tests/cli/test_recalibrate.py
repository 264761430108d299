"""Tests of ``boneage recalibrate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import Bundle, build_network, load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.evaluation import recalibration
from boneage_cli.core.intervals import calibrate
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.inputs import cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.outcome import Run
from boneage_cli.datasets.manifest import read_manifest


@pytest.fixture(scope="module")
def varied(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, its ages, which are all nearly the same, spread over childhood."""
    bundle = load_bundle(demo_bundle)
    sex, mean, scale = "fusion.sex.vectors.weight", "heads.age.age_mean", "heads.age.age_std"
    weights = {**bundle.weights, sex: torch.zeros_like(bundle.weights[sex])}
    weights |= {scale: 150 * weights[scale], mean: torch.tensor(-45.0)}
    path = tmp_path_factory.mktemp("varied") / "varied.safetensors"
    save_bundle(replace(bundle, weights=weights), path)
    return path


@pytest.fixture(scope="module")
def hands(demo_data: Path, varied: Path) -> pd.DataFrame:
    """The 80 drawn hands outside of the test split, with the tiny model's predictions."""
    manifest = read_manifest(demo_data)
    manifest = manifest[manifest["split"] != "test"].reset_index(drop=True)
    found = Predictor.load([varied]).predict_files(
        [Case(row.path, bool(row.male)) for row in manifest.itertuples()]
    )
    return manifest.assign(predicted=[prediction.months for prediction in found])


@pytest.fixture
def recalibrate(varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(table: pd.DataFrame, status: int = 0, model: Path = varied):
        table[["path", "male", "boneage"]].to_csv("site.csv", index=False)
        line = ["recalibrate", "site.csv", "--model", str(model), "--output", "site.safetensors"]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == status, result.output
        return result

    return run


def read_by_a_site(hands: pd.DataFrame, noise: float) -> pd.DataFrame:
    """Readings that are a noisy linear function of the predictions, different for each sex."""
    rng = np.random.default_rng(0)
    lines = np.where(hands["male"], 30 + 0.8 * hands["predicted"], -5 + 1.1 * hands["predicted"])
    return hands.assign(boneage=np.clip(lines + rng.normal(0, noise, len(hands)), 1, 240))


@pytest.mark.parametrize("name", ["report.docx", "IM000001"])
def test_nothing_but_a_model_is_written_over(
    name: str, varied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"somebody's")
    Path("site.csv").write_text(f"path,male,boneage\n{name},True,100\n")
    line = ["recalibrate", "site.csv", "--model", str(varied), "--output", name]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert "is there already and is no model" in result.stderr
    assert Path(name).read_bytes() == b"somebody's"


def test_a_site_that_reads_otherwise_gets_a_model_that_reads_as_it_does(
    recalibrate, hands: pd.DataFrame
) -> None:
    site = read_by_a_site(hands, noise=1)
    result = recalibrate(site)
    assert "written    site.safetensors" in result.stdout
    bundle = load_bundle(Path("site.safetensors"))
    for sex, (offset, slope) in {"M": (30, 0.8), "F": (-5, 1.1)}.items():
        found = bundle.correction[sex]
        ages = site.loc[site["male"] == (sex == "M"), "predicted"]
        expected = offset + slope * ages
        assert (found[0] + found[1] * ages - expected).abs().max() < 3
    asked = [Case(row.path, bool(row.male)) for row in site.itertuples()]
    corrected = [p.months for p in Predictor.load([bundle.path]).predict_files(asked)]
    assert np.abs(corrected - site["boneage"]).mean() < 2
    assert bundle.calibration.source == "80 radiographs of a site, cross-validated"
    assert bundle.metrics["recalibration"]["images"] == 80


def test_a_correction_that_does_not_help_is_not_written(recalibrate, hands: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    noisy = np.clip(hands["predicted"] + rng.normal(0, 15, len(hands)), 1, 240)
    result = recalibrate(hands.assign(boneage=noisy), status=1)
    assert "not written" in result.stdout
    # What was tried is told for each sex.
    for sex in ("girls", "boys"):
        (line,) = (each for each in result.stdout.splitlines() if f"{sex}: decrease" in each)
        assert " (-" in line
    assert not Path("site.safetensors").exists()


def test_evaluate_warns_of_the_readings_that_a_model_was_recalibrated_on(
    recalibrate, hands: pd.DataFrame, own_data: Path
) -> None:
    site = read_by_a_site(hands, noise=1)
    recalibrate(site)
    ages = dict(zip(site["id"], site["boneage"], strict=True))
    table = pd.read_csv(own_data / "validation.csv", dtype={"id": str})
    table.assign(boneage=table["id"].map(ages)).to_csv(own_data / "validation.csv", index=False)
    line = f"evaluate -m site.safetensors -d {own_data} --split validation --device cpu -o out"
    told = CliRunner().invoke(app, line.split())
    assert "16 of these radiographs were trained on" in " ".join(told.stderr.split())


def test_radiographs_that_the_model_was_trained_on_are_left_out(
    recalibrate, hands: pd.DataFrame
) -> None:
    known = hands["boneage"].where(hands["split"] == "train", read_by_a_site(hands, 1)["boneage"])
    result = recalibrate(hands.assign(boneage=known), status=2)
    told = " ".join(result.stderr.split())
    assert "16 radiographs of known age and sex" in told
    assert "left out 64, the first: drawn-0001: the model was trained on it" in told


def test_a_sex_with_few_radiographs_keeps_its_ages(recalibrate, hands: pd.DataFrame) -> None:
    site = read_by_a_site(hands, noise=1)
    few_girls = pd.concat([site[site["male"]], site[~site["male"].astype(bool)].head(5)])
    told = recalibrate(few_girls).stdout
    assert "not tried: 20 readings are needed" in told
    assert set(load_bundle(Path("site.safetensors")).correction) == {"M"}


def test_too_few_radiographs_are_refused(recalibrate, hands: pd.DataFrame) -> None:
    assert "needs 20 of a sex" in recalibrate(hands.head(12), status=2).stderr


def test_why_too_few_are_left_is_told(recalibrate, hands: pd.DataFrame) -> None:
    site = read_by_a_site(hands, noise=1)
    paths = [*site["path"][:5], *(f"gone-{number}.png" for number in range(5, len(site)))]
    error = recalibrate(site.assign(path=paths), status=2).stderr
    said = f"left out {len(site) - 5}, the first: gone-5.png: no such file"
    assert said in " ".join(error.split())


def test_ages_in_years_are_not_taken_for_months(recalibrate, hands: pd.DataFrame) -> None:
    years = hands.assign(boneage=(hands["predicted"] / 12).round(1))
    assert "look like years; give months" in recalibrate(years, status=2).stderr
    assert not Path("site.safetensors").exists()


def test_ages_that_are_all_equal_make_no_model_of_one_age(recalibrate, hands: pd.DataFrame) -> None:
    result = recalibrate(hands.assign(boneage=120), status=2)
    assert "known ages of sex F rise by 0.00 months per predicted month" in result.stderr
    assert not Path("site.safetensors").exists()


def test_readings_that_rise_far_too_steeply_make_no_model(recalibrate, hands: pd.DataFrame) -> None:
    steep = 120 + 3 * (hands["predicted"] - hands["predicted"].mean())
    result = recalibrate(hands.assign(boneage=steep.clip(1, 239)), status=2)
    assert "months per predicted month, not by 0.5 to 2" in result.stderr
    assert not Path("site.safetensors").exists()


def test_rows_without_an_age_are_told_and_left_out(recalibrate, hands: pd.DataFrame) -> None:
    site = read_by_a_site(hands, noise=1)
    site.loc[3, "boneage"] = None
    result = recalibrate(site)
    assert "no known age" in result.stderr
    assert load_bundle(Path("site.safetensors")).metrics["recalibration"]["images"] == 79


@pytest.mark.parametrize("age", ["-1", "9999", "inf"])
def test_ages_that_are_none_are_told_and_left_out(
    age: str, recalibrate, hands: pd.DataFrame
) -> None:
    site = read_by_a_site(hands, noise=1)
    site["boneage"] = site["boneage"].astype(object)
    site.loc[3, "boneage"] = age
    result = recalibrate(site)
    assert f"{float(age):g} months is no bone age (0 to 240); correct it" in " ".join(
        result.stderr.split()
    )
    assert load_bundle(Path("site.safetensors")).metrics["recalibration"]["images"] == 79


def test_the_readings_are_never_overwritten(recalibrate, hands: pd.DataFrame) -> None:
    recalibrate(read_by_a_site(hands, noise=1))
    readings = Path("site.csv").read_bytes()
    result = CliRunner().invoke(app, ["recalibrate", "site.csv", "--output", "site.csv"])
    assert result.exit_code == 2
    assert "site.csv: is an input as well" in result.stderr
    assert Path("site.csv").read_bytes() == readings


def test_a_corrected_model_is_not_corrected_again(recalibrate, hands: pd.DataFrame) -> None:
    site = read_by_a_site(hands, noise=1)
    recalibrate(site)
    result = recalibrate(site, status=2, model=Path("site.safetensors"))
    assert "has a correction already" in result.stderr


def test_the_gain_of_one_sex_does_not_carry_another_s_line_along(
    recalibrate, hands: pd.DataFrame
) -> None:
    site = read_by_a_site(hands, noise=1)
    girls = ~site["male"].astype(bool)
    noise = np.random.default_rng(2).normal(0, 15, len(site))
    site.loc[girls, "boneage"] = np.clip(hands["predicted"] + noise, 1, 240)[girls]
    recalibrate(site)
    assert set(load_bundle(Path("site.safetensors")).correction) == {"M"}


def test_the_intervals_of_an_uncorrected_sex_stay_as_they_were(
    recalibrate, hands: pd.DataFrame, varied: Path
) -> None:
    known = hands.assign(true=hands["boneage"], sex=np.where(hands["male"], "M", "F"))
    many = pd.concat([known] * 4)
    calibrated = replace(load_bundle(varied), calibration=calibrate(many, "drawn"))
    save_bundle(calibrated, Path("calibrated.safetensors"))
    site = read_by_a_site(hands, noise=1)
    boys = pd.concat([site[site["male"]]] * 2).reset_index(drop=True)
    recalibrate(boys, model=Path("calibrated.safetensors"))
    new = load_bundle(Path("site.safetensors")).calibration
    assert new.widths["F"] == load_bundle(Path("calibrated.safetensors")).calibration.widths["F"]
    assert new.half_width(100, True, 90) < 5
    assert "all" not in new.widths


def test_a_site_too_small_for_intervals_leaves_none_that_would_be_wrong_and_says_so(
    recalibrate, hands: pd.DataFrame, varied: Path
) -> None:
    known = hands.assign(true=hands["boneage"], sex=np.where(hands["male"], "M", "F"))
    calibrated = replace(load_bundle(varied), calibration=calibrate(known, "drawn"))
    save_bundle(calibrated, Path("calibrated.safetensors"))
    site = read_by_a_site(hands, noise=1)
    result = recalibrate(site.groupby("male").head(15 + 5), model=Path("calibrated.safetensors"))
    assert load_bundle(Path("site.safetensors")).calibration is None
    assert "gives no prediction intervals: they need 40 readings" in " ".join(result.stderr.split())


def test_a_radiograph_that_is_listed_again_counts_once(recalibrate, hands: pd.DataFrame) -> None:
    few = read_by_a_site(hands, noise=1).groupby("male").head(15)
    error = " ".join(recalibrate(pd.concat([few, few]), status=2).stderr.split())
    assert "30 radiographs of known age and sex" in error
    assert "a correction needs 20 of a sex" in error


def test_the_readings_of_one_radiograph_are_averaged(recalibrate, hands: pd.DataFrame) -> None:
    site = read_by_a_site(hands, noise=1)
    recalibrate(site)
    alone = load_bundle(Path("site.safetensors")).correction
    recalibrate(pd.concat([site.assign(boneage=site["boneage"] + d) for d in (-3, 3)]))
    twice = load_bundle(Path("site.safetensors")).correction
    for sex, line in alone.items():
        assert twice[sex] == pytest.approx(line, abs=1e-3)


def test_the_model_itself_is_never_overwritten(recalibrate, hands: pd.DataFrame, varied: Path):
    Path("site.safetensors").write_bytes(varied.read_bytes())
    site = read_by_a_site(hands, noise=1)
    result = recalibrate(site, status=2, model=Path("site.safetensors"))
    assert "is an input as well" in result.stderr
    assert Path("site.safetensors").read_bytes() == varied.read_bytes()


def test_the_model_of_a_run_is_never_overwritten(recalibrate, hands: pd.DataFrame, demo_run: Run):
    # The fixture writes to site.safetensors, which is a link to the run's own model here.
    before = demo_run.bundle.read_bytes()
    Path("site.safetensors").symlink_to(demo_run.bundle)
    result = recalibrate(read_by_a_site(hands, noise=1), status=2, model=demo_run.folder)
    assert "is an input as well" in result.stderr
    assert demo_run.bundle.read_bytes() == before


def table_of(site: pd.DataFrame, folder: Path) -> Path:
    table = folder / "site.csv"
    site[["path", "male", "boneage"]].to_csv(table, index=False)
    return table


def test_what_a_correction_gains_is_measured_on_radiographs_that_its_lines_did_not_see(
    hands: pd.DataFrame, varied: Path, tmp_path: Path
) -> None:
    site = read_by_a_site(hands, noise=3).groupby("male").head(20)
    output = tmp_path / "site.safetensors"
    table = table_of(site, tmp_path)
    result = recalibration.recalibrate(varied, table, output, device="cpu")
    assert result.written == output
    found = Predictor.load([output], device="cpu").predict_files(cases([str(table)]))
    months = np.array([prediction.months for prediction in found], float)
    # Errors on the radiographs used for fitting are smaller, by about a tenth for 2 parameters.
    fitted = np.abs(months - site["boneage"]).mean()
    assert 1.03 * fitted < result.after.value < 1.5 * fitted


def test_a_gain_that_may_be_chance_is_none(recalibrate, hands: pd.DataFrame) -> None:
    # Errors whose mean is a third of their SD: for 40 of them the gain is not significant.
    for seed in range(3):
        chance = np.random.default_rng(seed)
        site = hands.assign(boneage=hands["predicted"])
        for _, rows in site.groupby("male"):
            even = (np.arange(len(rows)) + 0.5) / len(rows)
            logistic = 6 * np.log(even / (1 - even))
            drawn = chance.permutation(logistic) + 0.35 * logistic.std()
            site.loc[rows.index, "boneage"] = np.clip(rows["predicted"] + drawn, 1, 240)
        assert "not written" in recalibrate(site, status=1).stdout
        assert not Path("site.safetensors").exists()


def test_a_sex_that_keeps_its_ages_gains_and_loses_nothing(
    hands: pd.DataFrame, varied: Path, tmp_path: Path
) -> None:
    site = read_by_a_site(hands, noise=1)
    girls = ~site["male"].astype(bool)
    noise = np.random.default_rng(2).normal(0, 15, len(site))
    site.loc[girls, "boneage"] = np.clip(hands["predicted"] + noise, 1, 240)[girls]
    result = recalibration.recalibrate(
        varied, table_of(site, tmp_path), tmp_path / "site.safetensors", device="cpu"
    )
    assert set(result.correction) == {"M"}
    assert result.gain.value == pytest.approx(result.before.value - result.after.value, abs=1e-6)


def test_a_corrected_model_asks_for_the_sex_that_its_lines_need(
    recalibrate, hands: pd.DataFrame, tiny: Experiment, tmp_path: Path
) -> None:
    without = tiny.model_copy(update={"model": tiny.model.model_copy(update={"gender": False})})
    torch.manual_seed(0)
    model = tmp_path / "without.safetensors"
    save_bundle(Bundle(without, 120, 40, build_network(without, 120, 40).state_dict()), model)
    found = Predictor.load([model]).predict_files([Case(path) for path in hands["path"]])
    site = hands.assign(predicted=[prediction.months for prediction in found])
    lines = np.where(site["male"], 40, 60)
    recalibrate(site.assign(boneage=site["predicted"] + lines), model=model)
    line = ["predict", hands["path"][0], "--device", "cpu", "--model"]
    assert CliRunner().invoke(app, [*line, str(model)]).exit_code == 0
    asked = CliRunner().invoke(app, [*line, "site.safetensors"])
    assert asked.exit_code == 2
    assert "--sex M or --sex F" in asked.stderr
    assert CliRunner().invoke(app, [*line, "site.safetensors", "--sex", "F"]).exit_code == 0
