from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.plots import bland_altman, learning_curve, scatter

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.uniform(5, 220, 60)
PREDICTED = TRUE + RANDOM.normal(0, 8, 60)


def drawn(path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] > 400
    assert picture.shape[1] > 400
    return picture


def history(epochs: int, **missing) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    values = dict.fromkeys(("train_loss", "train_mae", "val_loss", "val_mae"), 20.0 / epoch)
    return pd.DataFrame({"epoch": epoch, **values, "learning_rate": 1e-3 / epoch, **missing})


@pytest.mark.parametrize("epochs", [1, 12])
def test_a_learning_curve_is_drawn_for_few_and_many_epochs(tmp_path, epochs):
    learning_curve(history(epochs), tmp_path / "curve.png")
    drawn(tmp_path / "curve.png")


def test_a_learning_curve_leaves_gaps_where_values_are_missing(tmp_path):
    learning_curve(history(4, train_mae=np.nan, val_mae=np.nan), tmp_path / "gaps.png")
    learning_curve(history(4), tmp_path / "full.png")
    assert (drawn(tmp_path / "gaps.png") != drawn(tmp_path / "full.png")).any()


def test_a_learning_curve_of_a_model_of_sex_shows_its_errors(tmp_path):
    table = history(4).rename(columns={"train_mae": "train_sex_error", "val_mae": "val_sex_error"})
    learning_curve(table, tmp_path / "curve.png")
    drawn(tmp_path / "curve.png")


def test_a_scatter_plot_tells_girls_from_boys_by_colour(tmp_path):
    scatter(TRUE, PREDICTED, tmp_path / "plain.png")
    scatter(TRUE, PREDICTED, tmp_path / "sexes.png", "title", male=RANDOM.random(60) < 0.5)

    def is_orange(picture):
        blue, _, red = np.moveaxis(picture.astype(int), 2, 0)
        return (red - blue > 100).any()

    assert is_orange(drawn(tmp_path / "sexes.png"))
    assert not is_orange(drawn(tmp_path / "plain.png"))


@pytest.mark.parametrize("count", [1, 2, 60])
def test_plots_are_drawn_for_any_number_of_radiographs(tmp_path, count):
    scatter(TRUE[:count], PREDICTED[:count], tmp_path / "scatter.png")
    bland_altman(TRUE[:count], PREDICTED[:count], tmp_path / "bland_altman.png", "title")
    drawn(tmp_path / "scatter.png")
    drawn(tmp_path / "bland_altman.png")


def test_plots_drawn_at_the_same_time_are_the_same(tmp_path):
    def draw(number: int) -> np.ndarray:
        bland_altman(TRUE, PREDICTED, tmp_path / f"{number}.png")
        return drawn(tmp_path / f"{number}.png")

    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(draw, range(4))
    assert all((other == first).all() for other in others)
