"""Tests of the heat maps that explain a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from boneage_cli.core.bundle import Bundle, build_network
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.explanation.overlay import HEIGHT, overlay
from boneage_cli.core.explanation.pictures import Explainer, Explanations
from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.drawn_hands import NO_NUISANCES, DrawnHand, draw_hand
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph

SIDE = 64
CELLS = 16
# Transforms of an image and of its points, which are fractions of width and height.
POSES: dict[str, tuple[Callable, Callable]] = {
    "upright": (lambda pixels: pixels, lambda x, y: (x, y)),
    "turned": (np.rot90, lambda x, y: (y, 1 - x)),
    "over": (lambda pixels: np.rot90(pixels, 2), lambda x, y: (1 - x, 1 - y)),
    "mirrored": (np.fliplr, lambda x, y: (1 - x, y)),
}


@pytest.fixture(scope="module")
def hand() -> DrawnHand:
    return draw_hand(120, True, np.random.default_rng(3), nuisances=NO_NUISANCES)


def looking_at(
    family: str,
    view: str,
    rows: slice,
    columns: slice,
    *,
    months: float = 1,
    target: str = "age",
    **regions: object,
) -> Bundle:
    """Makes a model that adds the brightness of some of a view's 16 × 16 cells to the mean age.

    With the target "sex", the logit of being a boy is that brightness.
    """
    experiment = parse_experiment(
        {
            "preprocessing": {"height": SIDE, "width": SIDE},
            "regions": {"height": SIDE, "width": SIDE, **regions},
            "model": {
                "family": family,
                "gender": False,
                "targets": [target],
                "backbone": "small_cnn",
                "weights": "none",
                "channels": [1, 1],
                "normalisation": "unit",
                "pooling": "flatten",
                "hidden": [],
                "dropout": 0,
            },
        },
        "test",
    )
    network = build_network(experiment, 120, 40)
    with torch.no_grad():
        for weight in network.encoders.parameters():
            if weight.ndim == 4:
                weight.zero_()
                weight[:, :, 1, 1] = 1
        weights = torch.zeros(len(network.views), CELLS, CELLS)
        weights[network.views.index(view), rows, columns] = months
        network.heads[target].linear.weight[0] = weights.flatten()
    return Bundle(experiment, 120, 40, network.state_dict())


def explainer(*bundles: Bundle) -> Explainer:
    return Explainer(Predictor(bundles, "cpu", "32"))


def centre(heat: np.ndarray) -> tuple[float, float]:
    """Returns a heat map's centre of mass, as fractions of width and height."""
    rows, columns = np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5
    x, y = (columns * heat).sum() / heat.sum(), (rows * heat).sum() / heat.sum()
    return x / heat.shape[1], y / heat.shape[0]


MIDDLE = slice(7, 9)
# Cells that contain the tip of the middle finger in the registered hand.
TIP = (slice(0, 2), slice(6, 8))


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize(
    ("bundle", "landmark"),
    [
        (looking_at("roi", "carpal", MIDDLE, MIDDLE), "capitate"),
        (looking_at("fusion", "carpal", MIDDLE, MIDDLE), "capitate"),
        (looking_at("global", "hand", *TIP, registered_hand=True), "middle_tip"),
        (looking_at("global", "hand", *TIP, registered_hand=True, target="sex"), "middle_tip"),
    ],
    ids=["roi", "fusion", "global registered", "of sex"],
)
def test_heat_lies_on_the_bone_that_the_model_looks_at_however_the_hand_lies(
    hand: DrawnHand, bundle: Bundle, landmark: str, pose: str
):
    turn, moved = POSES[pose]
    radiograph = Radiograph(np.ascontiguousarray(turn(hand.pixels)))
    found = explainer(bundle).explain(radiograph, None)
    assert centre(found.heat) == pytest.approx(moved(*hand.landmarks[landmark]), abs=0.04)
    assert found.heat.max() == pytest.approx(1)
    assert np.mean(found.heat > 0.1) < 0.03
    assert found.landmarks is not None


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("shape", [(300, 200), (150, 400)])
def test_heat_of_a_model_that_looks_into_one_corner_lies_in_that_corner(
    fit: str, shape: tuple[int, int]
):
    # Padding covers fewer than 8 of the 16 cells on each side.
    height, width = shape
    everywhere = looking_at("global", "hand", slice(0, 8), slice(8, 16))
    values = everywhere.experiment.model_dump(mode="json")
    values["preprocessing"]["fit"] = fit
    bundle = Bundle(parse_experiment(values, "test"), 120, 40, everywhere.weights)
    found = explainer(bundle).explain(Radiograph(np.full(shape, 200, np.uint8)), None)
    assert min(found.heat.shape) == 192
    assert found.heat.shape[1] / found.heat.shape[0] == pytest.approx(width / height, rel=0.01)
    assert centre(found.heat) == pytest.approx((0.75, 0.25), abs=0.03)
    assert (found.outlines, found.landmarks) == ((), None)


def test_what_takes_from_the_age_is_as_hot_as_what_adds_to_it(hand: DrawnHand):
    adds, takes = (
        explainer(looking_at("roi", "metaph", MIDDLE, MIDDLE, months=months))
        .explain(Radiograph(hand.pixels), None)
        .heat
        for months in (1, -1)
    )
    np.testing.assert_allclose(adds, takes, atol=1e-5)


def test_the_maps_of_several_models_are_averaged(hand: DrawnHand):
    radiograph = Radiograph(hand.pixels)
    wrist = looking_at("roi", "carpal", MIDDLE, MIDDLE)
    tip = looking_at("global", "hand", *TIP, registered_hand=True, months=-20)
    one, other = (explainer(bundle).explain(radiograph, None) for bundle in (wrist, tip))
    both = explainer(wrist, tip).explain(radiograph, None)
    mean = (one.heat + other.heat) / 2
    np.testing.assert_allclose(both.heat, mean / mean.max(), atol=1e-5)
    assert [name for name, _ in both.outlines] == ["carpal", "metaph", "hand"]


def test_outlines_hold_the_bones_that_they_are_named_after(hand: DrawnHand):
    bundle = looking_at("roi", "carpal", MIDDLE, MIDDLE)
    found = explainer(bundle).explain(Radiograph(hand.pixels), None)
    for name, corners in found.outlines:
        left, top, right, bottom = hand.regions[name]
        bones = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        edges = np.roll(corners, -1, axis=0) - corners
        to_bones = bones[:, None] - corners
        # The corners are clockwise in the image, so the inside is to the right of every edge.
        assert (edges[:, 0] * to_bones[..., 1] - edges[:, 1] * to_bones[..., 0] > -0.01).all()


def test_a_model_that_takes_sex_is_asked_with_the_child_s_own(tiny: Experiment, hand: DrawnHand):
    torch.manual_seed(0)
    network = build_network(tiny, 120, 40)
    predictor = Predictor([Bundle(tiny, 120, 40, network.state_dict())], "cpu", "32")
    radiograph = Radiograph(hand.pixels, source="hand.png")
    boy, girl = (Explainer(predictor).explain(radiograph, male).heat for male in (True, False))
    assert np.abs(boy - girl).max() > 0.01
    with pytest.raises(BoneageError, match=r"hand\.png: sex unknown"):
        Explainer(predictor).explain(radiograph, None)


@pytest.mark.parametrize(
    "model",
    [
        {"pooling": "attention"},
        {"pooling": "gem", "head": "sigmoid"},
        {"sex_fusion": "cross_attention_gated", "head": "distribution"},
        {"backbone": "m46"},
        {"backbone": "resnet10t"},
    ],
    ids=lambda model: " ".join(model.values()),
)
def test_every_kind_of_network_can_be_explained(
    tiny: Experiment, hand: DrawnHand, model: dict[str, str]
):
    values = tiny.model_dump(mode="json")
    values["preprocessing"] |= {"height": 128, "width": 128}
    values["model"] |= model
    experiment = parse_experiment(values, "test")
    torch.manual_seed(0)
    network = build_network(experiment, 120, 40)
    bundle = Bundle(experiment, 120, 40, network.state_dict())
    heat = explainer(bundle).explain(Radiograph(hand.pixels), True).heat
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)


def test_a_picture_shows_the_radiograph_below_a_line_with_age_and_sex(hand: DrawnHand):
    radiograph = Radiograph(np.full((300, 200), 90, np.uint8))
    blind = explainer(looking_at("global", "hand", MIDDLE, MIDDLE, months=0))
    boy, girl, neither = (
        blind.draw(radiograph, "10 years 6 months", male) for male in (True, False, None)
    )
    line = len(boy) - HEIGHT
    half = boy.shape[1] // 2
    assert (boy[line:, :half] == overlay(radiograph)).all()
    assert (boy[line:, half:] == overlay(radiograph)).all()
    assert len({picture[:line].tobytes() for picture in (boy, girl, neither)}) == 3
    narrow = blind.draw(
        Radiograph(np.full((300, 60), 90, np.uint8)), "10 years 6 months (126.5 months)", True
    )
    assert narrow.shape == (line + HEIGHT, 2 * 102, 3)
    assert narrow[:line, :-4].any()
    assert not narrow[:line, -4:].any()


def test_a_radiograph_that_is_gone_is_told_and_the_others_are_drawn(
    hand: DrawnHand, tmp_path: Path
):
    model = explainer(looking_at("global", "hand", MIDDLE, MIDDLE))
    pictures = Explanations(model, tmp_path / "why")
    assert cv2.imwrite(str(tmp_path / "here.png"), hand.pixels)
    given = [Prediction(Case("gone.png"), 100.0), Prediction(Case(f"{tmp_path}/here.png"), 100.0)]
    drawn = str(tmp_path / "why" / "here.png")
    assert list(pictures.watch(given)) == [given[0], replace(given[1], picture=drawn)]
    assert pictures.pictures == 1
    (error,) = pictures.errors
    assert "gone.png" in error


def test_a_row_that_names_a_picture_comes_after_the_picture(hand: DrawnHand, tmp_path: Path):
    model = explainer(looking_at("global", "hand", MIDDLE, MIDDLE))
    assert cv2.imwrite(str(tmp_path / "here.png"), hand.pixels)
    given = [Prediction(Case(f"{tmp_path}/here.png"), 100.0)] * 2
    names = []
    for prediction in Explanations(model, tmp_path / "why").watch(given):
        assert prediction.picture is not None
        assert Path(prediction.picture).is_file()
        names.append(Path(prediction.picture).name)
    assert names == ["here.png", "here-2.png"]


def test_the_picture_of_a_doubtful_answer_says_so(hand: DrawnHand, tmp_path: Path):
    model = explainer(looking_at("global", "hand", MIDDLE, MIDDLE))
    assert cv2.imwrite(str(tmp_path / "here.png"), hand.pixels)
    sure = Prediction(Case(f"{tmp_path}/here.png"), 100.0)
    shown = []
    for answer in (sure, replace(sure, reason="no-hand")):
        folder = tmp_path / f"why {answer.reason}"
        list(Explanations(model, folder).watch([answer]))
        shown.append(cv2.imread(str(folder / "here.png")))
    # The part of the header left of the colour scale.
    above, doubtful = (picture[:24, :-200].any(axis=(0, 2)).sum() for picture in shown)
    assert doubtful > above
    np.testing.assert_array_equal(shown[0][24:], shown[1][24:])


def test_a_gate_between_image_and_sex_can_be_read(tiny: Experiment, hand: DrawnHand):
    model = tiny.model.model_copy(update={"sex_fusion": "gated"})
    experiment = tiny.model_copy(update={"model": model})
    network = build_network(experiment, 120, 40).eval()
    bundle = Bundle(experiment, 120, 40, network.state_dict())
    radiograph = Radiograph(hand.pixels)
    seen = Predictor([bundle], "cpu", "32").render(radiograph)
    (views,) = seen.values()
    pixels = {name: torch.from_numpy(np.array(view))[None, None] for name, view in views.items()}
    with torch.no_grad():
        gate = network(pixels, torch.ones(1))["gate"]
    found = explainer(bundle).explain(radiograph, True)
    assert found.image_share == pytest.approx(float(gate.mean()), abs=1e-5)
    assert 0 < found.image_share < 1
    without = explainer(looking_at("global", "hand", MIDDLE, MIDDLE))
    assert without.explain(radiograph, None).image_share is None
