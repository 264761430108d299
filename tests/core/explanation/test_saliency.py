"""Tests of saliency maps and of the regions derived from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.bundle import Bundle, build_network
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.explanation.saliency import grad_cam, onto_radiograph, scaled
from boneage_cli.core.regions.age_saliency import AgeSaliency
from boneage_cli.core.regions.salient_regions import SIDE, find_peaks, place_regions
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph


def spots(
    *places: tuple[float, float, float], height: int = 256, width: int = 192, spread: float = 14
) -> np.ndarray:
    """Returns a heat map with spots (x, y, heat), x and y as fractions of width and height."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    heat = np.zeros((height, width))
    for x, y, top in places:
        distance = (columns - x * width) ** 2 + (rows - y * height) ** 2
        heat = np.maximum(heat, top * np.exp(-distance / (2 * spread**2)))
    return heat.astype(np.float32)


def changed(experiment: Experiment, **sections: dict[str, object]) -> Experiment:
    values = experiment.model_dump(mode="json")
    for section, changes in sections.items():
        values[section] |= changes
    return parse_experiment(values, "test")


@pytest.fixture(scope="module")
def brightness(tiny: Experiment) -> Bundle:
    """A model whose age is the brightness, so that its saliency follows the bright pixels."""
    experiment = changed(
        tiny,
        preprocessing={"height": 96, "width": 64},
        model={"gender": False, "channels": [1], "hidden": [], "dropout": 0},
    )
    network = build_network(experiment, 120, 40)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 4:
                weight.zero_()
                weight[0, 0, 1, 1] = 1
            elif name.endswith("weight"):
                weight.fill_(1)
    return Bundle(experiment, 120, 40, network.state_dict())


def test_peaks_are_local_maxima_and_never_neighbours():
    heat = spots((0.5, 0.7, 1.0), (0.55, 0.72, 0.97), (0.45, 0.3, 0.8))
    peaks = find_peaks(heat, 46)
    assert [round(peak.heat, 1) for peak in peaks] == [1.0, 0.8]
    assert [(peak.x, peak.y) for peak in peaks] == [
        (pytest.approx(96, abs=1), pytest.approx(179, abs=1)),
        (pytest.approx(86, abs=1), pytest.approx(77, abs=1)),
    ]


def test_a_level_top_is_one_peak_and_a_level_slope_none():
    heat = np.zeros((100, 80), np.float32)
    heat[60:63, 30:35] = 1
    heat[40:60, 30:34] = 0.9
    heat[10:13, 5:8] = 0.5
    assert [(peak.x, peak.y) for peak in find_peaks(heat, 2)] == [(32, 61), (6, 11)]


def test_a_cooler_peak_near_the_skirt_of_a_hotter_one_is_found():
    heat = spots((0.5, 0.5, 1.0), spread=40) + spots((0.5, 0.85, 0.5), spread=8)
    assert len(find_peaks(heat / heat.max(), 46)) == 2


@pytest.mark.parametrize(("wrist", "palm"), [(1.0, 0.7), (0.7, 1.0)])
def test_the_wrist_is_the_lower_peak_whichever_is_hotter(wrist: float, palm: float):
    found = place_regions(spots((0.5, 0.72, wrist), (0.45, 0.4, palm)))
    np.testing.assert_allclose(found.carpal.mean(0), (0.5, 0.72), atol=0.01)
    np.testing.assert_allclose(found.metaph.mean(0), (0.45, 0.4), atol=0.01)
    assert found.guessed == ()
    assert found.heat == pytest.approx(0.7, abs=0.01)


def test_heat_in_the_band_of_the_wrist_is_not_taken_for_the_metacarpals():
    found = place_regions(spots((0.3, 0.75, 1.0), (0.85, 0.72, 0.9), (0.5, 0.35, 0.5)))
    np.testing.assert_allclose(found.carpal.mean(0), (0.3, 0.75), atol=0.01)
    np.testing.assert_allclose(found.metaph.mean(0), (0.5, 0.35), atol=0.01)


@given(
    x=st.floats(0, 1), y=st.floats(0, 1), height=st.integers(60, 200), width=st.integers(60, 200)
)
@settings(deadline=None, max_examples=40)
def test_regions_are_squares_even_where_they_reach_beyond_the_radiograph(
    x: float, y: float, height: int, width: int
):
    found = place_regions(spots((x, y, 1.0), height=height, width=width))
    for corners in (found.carpal, found.metaph):
        pixels = corners * (width, height)
        sides = np.linalg.norm(np.roll(pixels, -1, axis=0) - pixels, axis=1)
        np.testing.assert_allclose(sides, SIDE * min(height, width))


@pytest.mark.parametrize(
    ("peak", "carpal", "metaph", "guessed"),
    [
        ((0.4, 0.7, 1.0), (0.4, 0.7), (0.6, 0.3), ("metaph",)),
        ((0.4, 0.3, 1.0), (0.6, 0.7), (0.4, 0.3), ("carpal",)),
        ((0.4, 0.7, 0.2), (0.5, 0.5), (0.5, 0.5), ("carpal", "metaph")),
    ],
)
def test_where_a_peak_is_missing_its_region_is_guessed_and_the_guess_is_told(
    peak: tuple[float, float, float],
    carpal: tuple[float, float],
    metaph: tuple[float, float],
    guessed: tuple[str, ...],
):
    found = place_regions(spots(peak), threshold=0.3)
    np.testing.assert_allclose(found.carpal.mean(0), carpal, atol=0.01)
    np.testing.assert_allclose(found.metaph.mean(0), metaph, atol=0.01)
    assert found.guessed == guessed
    assert found.heat == 0


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("shape", [(300, 200), (150, 400)])
def test_heat_lies_where_the_model_looks_in_the_whole_radiograph(
    brightness: Bundle, fit: str, shape: tuple[int, int]
):
    height, width = shape
    pixels = np.rint(255 * spots((0.8, 0.3, 1.0), height=height, width=width)).astype(np.uint8)
    bundle = Bundle(
        changed(brightness.experiment, preprocessing={"fit": fit}), 120, 40, brightness.weights
    )
    (heat,) = AgeSaliency(bundle, device="cpu").heat_maps([Radiograph(pixels)])
    assert min(heat.shape) == 192
    assert heat.shape[1] / heat.shape[0] == pytest.approx(width / height, rel=0.01)
    assert heat.max() == pytest.approx(1)
    (hottest,) = find_peaks(heat, 200)
    assert hottest.centre / heat.shape[::-1] == pytest.approx((0.8, 0.3), abs=0.03)


def test_a_squashed_radiograph_has_a_heat_map_of_its_true_shape(brightness: Bundle):
    pixels = np.rint(255 * spots((0.2, 0.6, 1.0), height=200, width=200)).astype(np.uint8)
    (heat,) = AgeSaliency(brightness, device="cpu").heat_maps([Radiograph(pixels, aspect=0.75)])
    assert heat.shape == (256, 192)


def test_a_model_that_takes_sex_needs_to_be_told_none(tiny: Experiment):
    network = build_network(tiny, 120, 40)
    saliency = AgeSaliency(Bundle(tiny, 120, 40, network.state_dict()), device="cpu")
    noise = np.random.default_rng(0).integers(0, 255, (90, 70), np.uint8)
    first, second = saliency.heat_maps([Radiograph(noise), Radiograph(noise)])
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"family": "roi"}},
        {"regions": {"registered_hand": True}},
        {"model": {"targets": ["sex"], "gender": False}},
    ],
)
def test_models_that_cannot_tell_regions_are_refused(
    tiny: Experiment, changes: dict[str, dict[str, object]]
):
    with pytest.raises(BoneageError, match="model"):
        AgeSaliency(Bundle(changed(tiny, **changes), 120, 40, {}), device="cpu")


def test_the_map_of_a_model_that_takes_sex_is_the_mean_of_a_girl_s_and_a_boy_s(tiny: Experiment):
    experiment = changed(tiny, model={"sex_fusion": "gated"})
    torch.manual_seed(3)
    network = build_network(experiment, 120, 40)
    with torch.no_grad():
        # Larger weights, so that the gate selects different features for boys and girls.
        for weight in network.fusion.parameters():
            weight.mul_(20)
    saliency = AgeSaliency(Bundle(experiment, 120, 40, network.state_dict()), device="cpu")
    noise = np.random.default_rng(0).integers(0, 255, (128, 112), np.uint8)
    radiograph = Radiograph(noise)
    seen = torch.from_numpy(saliency.renderer(radiograph)["hand"])[None, None].float()
    of_girl, of_boy = (
        scaled(np.maximum(grad_cam(saliency.network, {"hand": seen}, sex)[0]["hand"][0], 0))
        for sex in (torch.zeros(1), torch.ones(1))
    )
    assert np.abs(of_girl - of_boy).max() > 0.05

    def laid_over(cells: np.ndarray) -> np.ndarray:
        frame = saliency.renderer.frames(radiograph, None)["hand"]
        return scaled(onto_radiograph(cells, (64, 56), frame, radiograph))

    (heat,) = saliency.heat_maps([radiograph])
    np.testing.assert_allclose(heat, laid_over((of_girl + of_boy) / 2), atol=1e-5)
    for alone in (of_girl, of_boy):
        assert np.abs(heat - laid_over(alone)).max() > 0.01


def test_a_place_that_takes_from_the_age_has_no_heat(brightness: Bundle):
    light = np.rint(255 * spots((0.5, 0.4, 1.0), height=96, width=64)).astype(np.uint8)
    younger = {
        name: -weight if name.endswith("weight") and weight.ndim == 2 else weight
        for name, weight in brightness.weights.items()
    }
    for weights, hottest in ((brightness.weights, 1), (younger, 0)):
        bundle = Bundle(brightness.experiment, 120, 40, weights)
        (heat,) = AgeSaliency(bundle, device="cpu").heat_maps([Radiograph(light)])
        assert heat.max() == pytest.approx(hottest)
