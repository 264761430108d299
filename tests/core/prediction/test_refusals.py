"""Tests of refused radiographs and of the reasons given."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.landmarks import LandmarkLocator
from boneage_cli.core.likeness import Likeness, fit_likeness
from boneage_cli.core.prediction.cases import REASONS, Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.prediction.refusals import has_another_hand, reason_of_key_points
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.imaging.perturbations import cut
from boneage_cli.imaging.radiograph import Radiograph, negative
from boneage_cli.imaging.reading import read_radiograph


@pytest.fixture(scope="module")
def locator() -> LandmarkLocator:
    return LandmarkLocator.load(device="cpu")


@pytest.fixture(scope="module")
def hands(demo_data: Path) -> list[Radiograph]:
    return [read_radiograph(path) for path in read_manifest(demo_data, "test")["path"][:12]]


def page_of_text() -> np.ndarray:
    page = np.full((400, 300), 255, np.uint8)
    for row in range(20, 390, 14):
        cv2.putText(page, "Lorem ipsum dolor sit amet, consetetur", (12, row), 0, 0.4, 0, 1)
    return page


def photograph() -> np.ndarray:
    """Draws a noisy photograph of a house with windows and a fence under a bright sky."""
    scene = np.repeat(np.linspace(250, 120, 400)[:, None], 300, 1)
    cv2.rectangle(scene, (60, 150), (240, 380), 90, -1)
    for x in (90, 190):
        cv2.rectangle(scene, (x, 200), (x + 30, 240), 200, -1)
    cv2.fillPoly(scene, [np.array([(40, 150), (150, 70), (260, 150)])], 60)
    for x in range(0, 300, 12):
        cv2.line(scene, (x, 340), (x, 399), 230, 3)
    scene += np.random.default_rng(0).normal(0, 8, scene.shape)
    return scene.clip(0, 255).astype(np.uint8)


NO_HANDS = {
    "blank": np.full((400, 300), 128, np.uint8),
    "black": np.zeros((400, 300), np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (400, 300), np.uint8),
    "page of text": page_of_text(),
    "photograph": photograph(),
}


@pytest.mark.parametrize("name", NO_HANDS)
def test_what_is_no_hand_is_told_as_such(locator: LandmarkLocator, name: str) -> None:
    radiograph = Radiograph(NO_HANDS[name])
    assert reason_of_key_points(radiograph, locator.locate([radiograph])[0]) == "no-hand"


def test_whole_hands_are_accepted(locator: LandmarkLocator, hands: list[Radiograph]) -> None:
    found = locator.locate(hands)
    reasons = [reason_of_key_points(hand, key) for hand, key in zip(hands, found, strict=True)]
    assert reasons == [None] * len(hands)


@pytest.mark.parametrize(
    ("side", "share"), [("fingers", 0.25), ("fingers", 0.12), ("wrist", -0.06), ("wrist", 0.2)]
)
def test_a_hand_that_is_cut_off_is_refused(
    locator: LandmarkLocator, hands: list[Radiograph], side: str, share: float
) -> None:
    """The cut is at ``share`` of the hand's length from its end (fingertip, capitate)."""
    reasons = []
    for hand, found in zip(hands, locator.locate(hands), strict=True):
        middle_tip, _, capitate = found.landmarks.array()
        length = capitate[1] - middle_tip[1]
        if side == "fingers":
            rest = cut(hand, top=float(middle_tip[1] + share * length))
        else:
            rest = cut(hand, bottom=float(1 - capitate[1] + share * length))
        reasons.append(reason_of_key_points(rest, locator.locate([rest])[0]))
    assert set(reasons) <= {f"{side}-cut-off", "no-hand"}
    assert reasons.count(f"{side}-cut-off") > len(reasons) / 2


def test_a_negative_that_does_not_say_so_is_found_as_the_hand_that_it_is(
    locator: LandmarkLocator, hands: list[Radiograph]
) -> None:
    for plain, turned in zip(
        locator.locate(hands), locator.locate([negative(hand) for hand in hands]), strict=True
    ):
        assert (plain.inverted, turned.inverted) == (False, True)
        assert turned.landmarks.array() == pytest.approx(plain.landmarks.array(), abs=0.03)


def test_a_negative_gives_a_model_the_pixels_of_the_positive(
    tiny: Experiment, hands: list[Radiograph]
) -> None:
    regions = tiny.regions.model_copy(update={"registered_hand": True})
    render = ViewRenderer(view_settings(tiny.model_copy(update={"regions": regions})))
    for hand in hands[:3]:
        plain, turned = (render(each)["hand"].astype(float) for each in (hand, negative(hand)))
        assert np.corrcoef(plain.ravel(), turned.ravel())[0, 1] > 0.9


def test_a_faint_hand_keeps_its_shades(tiny: Experiment, hands: list[Radiograph]) -> None:
    settings = {
        "regions": tiny.regions.model_copy(update={"registered_hand": True}),
        "preprocessing": tiny.preprocessing.model_copy(update={"contrast": "centre"}),
    }
    render = ViewRenderer(view_settings(tiny.model_copy(update=settings)))
    for hand in hands[:3]:
        # The same 256 levels, in a twentieth of the 16-bit range.
        pixels = 2000 + 12 * hand.pixels.astype(np.uint16)
        faint = Radiograph(pixels, white=65535, aspect=hand.aspect)
        located = render.locate(hand)
        seen, expected = (render.render(each, located)["hand"] for each in (faint, hand))
        assert np.abs(seen.astype(int) - expected).max() <= 2


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 80), st.integers(2, 40))
def test_nothing_that_the_limits_were_taken_from_is_refused(seed, features, others) -> None:
    chance = np.random.default_rng(seed)
    held_out = chance.normal(0, 3, (others, features))
    likeness = fit_likeness(chance.normal(0, 1, (50, features)), held_out, "numbers")
    assert float(likeness.score(held_out).max()) < 1


def test_what_lies_off_the_axes_of_training_is_refused_as_what_lies_far_along_them() -> None:
    chance = np.random.default_rng(0)
    flat = np.zeros((1000, 100))
    flat[:, :10] = chance.normal(0, 1, (1000, 10))
    flat += chance.normal(0, 0.01, flat.shape)
    likeness = fit_likeness(flat[:500], flat[500:], "numbers")
    usual, far, aside = np.zeros((3, 100), np.float32)
    far[0], aside[50] = 15, 1
    scores = likeness.score(np.stack([usual, far, aside]))
    assert (scores > 1).tolist() == [False, True, True]


def test_likeness_survives_the_bundle(demo_bundle: Path, tmp_path: Path) -> None:
    likeness = load_bundle(demo_bundle).likeness
    assert isinstance(likeness, Likeness)
    assert likeness.source == "64 training and 16 validation radiographs"
    save_bundle(replace(load_bundle(demo_bundle)), tmp_path / "copy.safetensors", half=True)
    copy = load_bundle(tmp_path / "copy.safetensors")
    features = np.random.default_rng(0).normal(size=(5, len(likeness.mean)))
    assert copy.likeness is not None
    assert copy.likeness.score(features) == pytest.approx(likeness.score(features), rel=0.01)
    assert (tmp_path / "copy.safetensors").stat().st_size < demo_bundle.stat().st_size


def test_a_model_refuses_what_is_unlike_its_training_and_force_answers(
    demo_bundle: Path, demo_data: Path, tmp_path: Path
) -> None:
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), NO_HANDS["noise"])
    drawing = read_manifest(demo_data, "test")["path"][0]
    # The tiny network's features are poor, so the limits are tightened.
    bundle = load_bundle(demo_bundle)
    assert bundle.likeness is not None
    within, beyond = bundle.likeness.limits
    closer = replace(bundle.likeness, limits=(0.21 * within, 0.21 * beyond))
    predictor = Predictor([replace(bundle, likeness=closer)], device="cpu")
    cases = [Case(str(noise), True), Case(str(drawing), True)]
    refused, answered = predictor.predict_files(cases)
    assert (refused.months, refused.reason) == (None, "unlike-training")
    assert refused.error == f"refused: {REASONS['unlike-training']} (unlike-training)"
    assert (answered.error, answered.reason) == (None, None)
    forced, again = predictor.predict_files(cases, force=True)
    assert forced.months is not None
    assert (forced.reason, forced.error) == ("unlike-training", None)
    assert again.months == answered.months


@pytest.mark.parametrize(
    ("scores", "reason"), [((1.5, 0.4), None), ((1.8, 0.4), "unlike-training")]
)
def test_several_models_refuse_by_their_mean_score(
    scores: tuple[float, float], reason: str | None, demo_bundle: Path, demo_data: Path
) -> None:
    drawing = read_radiograph(read_manifest(demo_data, "test")["path"][0])
    bundle = load_bundle(demo_bundle)
    assert bundle.likeness is not None
    (answers, _) = Predictor([bundle], "cpu")._of_radiographs([drawing], [True], False, 1)
    models = []
    for score in scores:
        factor = float(answers.scores[0]) / score
        within, beyond = bundle.likeness.limits
        scored = replace(bundle.likeness, limits=(factor * within, factor * beyond))
        models.append(replace(bundle, likeness=scored))
    _, (found,) = Predictor(models, "cpu").answer([drawing], [True])
    assert found == reason


def test_every_reason_is_a_code_with_a_sentence() -> None:
    assert all(code == code.lower().replace(" ", "-") and text for code, text in REASONS.items())


def side_by_side(first: Radiograph, second: Radiograph) -> np.ndarray:
    """Puts both hands of a child on one image, thumbs inwards."""
    rows = max(first.pixels.shape[0], second.pixels.shape[0])
    left, right = (
        np.pad(pixels, ((0, rows - len(pixels)), (0, 0)))
        for pixels in (second.pixels[:, ::-1], first.pixels)
    )
    return np.hstack([right, left])


@pytest.mark.parametrize("turn", range(4))
def test_two_hands_on_one_plate_are_refused_however_it_is_turned(
    locator: LandmarkLocator, hands: list[Radiograph], turn: int
) -> None:
    told = []
    for first, second in zip(hands[::2], hands[1::2], strict=True):
        plate = Radiograph(np.ascontiguousarray(np.rot90(side_by_side(first, second), turn)))
        told.append(has_another_hand(plate, locator.locate([plate])[0], locator))
    assert sum(told) >= len(told) - 1


def test_a_hand_beside_nothing_is_one_hand(
    locator: LandmarkLocator, hands: list[Radiograph]
) -> None:
    for hand in hands:
        for beside in (np.zeros_like(hand.pixels), np.full_like(hand.pixels, 90)):
            plate = Radiograph(np.hstack([hand.pixels, beside]))
            assert not has_another_hand(plate, locator.locate([plate])[0], locator)


def test_predict_refuses_two_hands_and_force_answers_for_one(
    shared_data: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(shared_data / "rsna-native-150.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".png", ".webp")))[:2]
        for name in names:
            (tmp_path / Path(name).name).write_bytes(archive.read(name))
    first, second = (read_radiograph(tmp_path / Path(name).name) for name in names)
    cv2.imwrite(str(tmp_path / "plate.png"), side_by_side(first, second))
    predictor = Predictor.load()
    cases = [Case(str(tmp_path / name), male=True) for name in ("plate.png", Path(names[0]).name)]
    plate, single = predictor.predict_files(cases)
    assert plate.reason == "two-hands"
    assert plate.error == "refused: there is another hand beside it (two-hands)"
    assert single.error is None
    forced = next(predictor.predict_files(cases[:1], force=True))
    assert forced.months is not None
    assert forced.reason == "two-hands"


def test_what_lies_beside_a_hand_on_a_negative_is_looked_at_as_on_the_positive(
    locator: LandmarkLocator, hands: list[Radiograph]
) -> None:
    seen: list[np.ndarray] = []

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        seen.append(pixels)
        return locator.run(pixels)

    watched = LandmarkLocator(run, locator.size)
    plate = Radiograph(side_by_side(*hands[:2]))
    (located,) = locator.locate([plate])
    for each, inverted in ((plate, False), (negative(plate), True)):
        assert locator.locate([each])[0].inverted == inverted
        assert has_another_hand(each, replace(located, inverted=inverted), watched)
    of_plate, of_negative = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert of_plate
    for expected, found in zip(of_plate, of_negative, strict=True):
        assert np.abs(found.astype(float) - expected).max() <= 1


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_two_hands_on_a_squashed_plate_are_refused_too(
    locator: LandmarkLocator, hands: list[Radiograph], factor: float
) -> None:
    told = []
    for first, second in zip(hands[::2], hands[1::2], strict=True):
        pixels = side_by_side(first, second)
        height, width = pixels.shape
        squashed = cv2.resize(pixels, (round(factor * width), height))
        plate = Radiograph(squashed, aspect=width / height)
        told.append(has_another_hand(plate, locator.locate([plate])[0], locator))
    assert sum(told) >= len(told) - 1
