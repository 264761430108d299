"""Tests of predictions for several radiographs and with several models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boneage_cli.core.bundle import Bundle, build_network, load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.intervals import LEVELS, Calibration
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph


@pytest.fixture
def hands(demo_data: Path) -> list[str]:
    """Paths of four drawn hands."""
    return read_manifest(demo_data, "test")["path"].tolist()[:4]


@pytest.fixture
def of_widths(demo_bundle: Path):
    """Makes a predictor with one model per half width, which is the same at every level."""

    def make(*halves: float) -> Predictor:
        bundle = load_bundle(demo_bundle)
        calibrations = [
            Calibration({"all": (half,) * len(LEVELS)}, {"all": 500}, "made") for half in halves
        ]
        return Predictor([replace(bundle, calibration=each) for each in calibrations], "cpu")

    return make


def test_an_unreadable_image_shifts_no_sex(
    demo_bundle: Path, hands: list[str], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(hands[0]).read_bytes()[:2000])
    predictor = Predictor.load([demo_bundle], device="cpu")
    cases = [Case(str(cut), False), Case(hands[1], True), Case(hands[2], False)]
    broken, boy, girl = predictor.predict_files(cases)
    assert broken.months is None
    for case, together in zip(cases[1:], (boy, girl), strict=True):
        (alone,) = predictor.predict_files([case])
        (other,) = predictor.predict_files([replace(case, male=not case.male)])
        (said,) = predictor.predict([case.read()], [case.male])
        assert together.male == case.male
        assert together.months == pytest.approx(said, abs=1e-3)
        assert together.months == pytest.approx(alone.months, abs=1e-3)
        assert together.months != pytest.approx(other.months, abs=0.01)


def test_radiographs_in_memory_keep_their_sex_in_every_batch(
    demo_bundle: Path, hands: list[str]
) -> None:
    predictor = Predictor.load([demo_bundle], device="cpu")
    radiographs = [read_radiograph(path) for path in hands]
    sexes = [True, False, False, True]
    together = predictor.predict(radiographs, sexes)
    others = predictor.predict(radiographs, [not male for male in sexes])
    assert (abs(together - others) > 0.01).all()
    assert predictor.predict(radiographs, sexes, batch_size=1) == pytest.approx(together, abs=1e-3)
    # A DICOM file states the sex itself.
    stated = [replace(r, male=male) for r, male in zip(radiographs, sexes, strict=True)]
    assert predictor.predict(stated, [None] * 4) == pytest.approx(together, abs=1e-3)


def test_a_letter_is_not_taken_for_the_sex_of_a_boy(demo_bundle: Path, hands: list[str]) -> None:
    predictor = Predictor.load([demo_bundle], device="cpu")
    with pytest.raises(BoneageError, match="male: 'F' is neither True, False nor None"):
        predictor.answer([read_radiograph(hands[0])], ["F"])


def test_an_interval_does_not_begin_before_birth(of_widths) -> None:
    assert of_widths(10.0).interval(3, True, 90) == (0, 13)
    assert of_widths(10.0).interval(30, True, 90) == (20, 40)


def test_an_interval_of_several_models_is_as_wide_as_theirs_on_average(of_widths) -> None:
    low, high = of_widths(5.0, 15.0).interval(100, False, 90)
    assert (low, high) == pytest.approx((90, 110))


@pytest.mark.parametrize("tta", [False, True])
def test_the_age_by_several_models_is_the_mean_of_theirs(
    demo_bundle: Path, tiny: Experiment, hands: list[str], tta: bool
) -> None:
    torch.manual_seed(1)
    network = build_network(tiny, 90, 30)
    others = Bundle(tiny, 90, 30, network.state_dict())
    pair = [load_bundle(demo_bundle), others]
    radiographs, male = [read_radiograph(path) for path in hands], [True, False, True, False]
    first, second = (
        Predictor([bundle], "cpu").predict(radiographs, male, tta=tta) for bundle in pair
    )
    assert abs(first - second).min() > 0.5
    both = Predictor(pair, "cpu").predict(radiographs, male, tta=tta)
    assert both == pytest.approx((first + second) / 2, abs=0.01)
