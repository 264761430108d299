"""Tests of the views of a radiograph that networks get as inputs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.landmarks import Located
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.datasets.drawn_hands import NO_NUISANCES, draw_hand
from boneage_cli.imaging.landmarks import LANDMARK_NAMES, Landmarks
from boneage_cli.imaging.radiograph import Radiograph


@pytest.mark.parametrize("removed", [True, False])
def test_all_but_the_hand_is_black_where_the_background_is_removed(
    removed: bool, tiny: Experiment
) -> None:
    hand = draw_hand(120, True, np.random.default_rng(3), nuisances=NO_NUISANCES)
    located = Located(
        Landmarks.from_array(np.array([hand.landmarks[name] for name in LANDMARK_NAMES])),
        confidence=1.0,
        fallback=False,
    )
    values = tiny.model_dump(mode="json")
    values["preprocessing"] |= {"contrast": "none"}
    values["regions"] |= {"registered_hand": True, "background_removed": removed}
    render = ViewRenderer(view_settings(parse_experiment(values, "test")))
    gray = Radiograph(np.maximum(hand.pixels, 40))
    view = render.render(gray, located)["hand"]
    corners = view[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners < 5).all() == removed
    # The hand itself stays.
    height, width = view.shape
    assert view[height // 2, width // 2] > 40


@pytest.mark.parametrize("family", ["global", "roi"])
def test_a_registered_hand_of_many_rows_is_seen_as_soft_as_one_of_few(
    tiny: Experiment, family: str
) -> None:
    hand = draw_hand(120, True, np.random.default_rng(3), size=(598, 480), nuisances=NO_NUISANCES)
    located = Located(
        Landmarks.from_array(np.array([hand.landmarks[name] for name in LANDMARK_NAMES])),
        confidence=1.0,
        fallback=False,
    )
    grain = np.random.default_rng(0).normal(0, 30, hand.pixels.shape)
    fine = Radiograph(np.clip(hand.pixels + grain, 0, 255).astype(np.uint8))
    # Smoothed before halving the rows, as in a detector with fewer rows.
    soft = cv2.GaussianBlur(fine.pixels, (0, 0), 0.85)
    coarse = Radiograph(cv2.resize(soft, (240, 299), interpolation=cv2.INTER_AREA))

    def seen(radiograph: Radiograph, rows: int) -> dict[str, np.ndarray]:
        values = tiny.model_dump(mode="json")
        values["model"]["family"] = family
        values["preprocessing"] |= {"height": 512, "width": 448, "rows": rows}
        values["regions"] |= {"registered_hand": True, "height": 256, "width": 256}
        render = ViewRenderer(view_settings(parse_experiment(values, "test")))
        views = render.render(radiograph, located)
        return {name: pixels.astype(float) for name, pixels in views.items()}

    few, many, sharp = seen(coarse, 299), seen(fine, 299), seen(fine, 0)
    for name, expected in few.items():
        assert np.abs(many[name] - expected).mean() < 0.6 * np.abs(sharp[name] - expected).mean()
