from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.plots import bland_altman, learning_curve, losses, scatter

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


def test_losses_stand_out_from_gains_and_from_what_shows_nothing(tmp_path):
    def colours(value: float, low: float, high: float) -> list[bool]:
        lost = np.array([[value, low, high]] * 9)
        losses(["change"] * 9, ["pose"] * 9, lost, tmp_path / "losses.png")
        picture = drawn(tmp_path / "losses.png").astype(int)
        wanted = {"orange": (0, 94, 213), "green": (115, 158, 0)}
        return [(np.abs(picture - bgr).max(axis=2) < 8).any() for bgr in wanted.values()]

    assert colours(3, 1, 30) == [True, False]
    assert colours(-3, -40, -1) == [False, True]
    assert colours(0.5, -1, 2) == [False, False]
    # Nothing is lost that two decimals do not show.
    assert colours(0.001, 0.0001, 0.002) == [False, False]


@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_plot_of_losses_grows_with_the_number_of_changes(tmp_path, count):
    random = np.random.default_rng(count)
    lost = np.sort(random.normal(0, 1, (count, 3)) * 10 ** random.uniform(-3, 2, (count, 1)))
    names = [f"change {number}" for number in range(count)]
    groups = [f"group {number // 7}" for number in range(count)]
    losses(names, groups, lost[:, [1, 0, 2]], tmp_path / "losses.png", "title", "figures")
    picture = cv2.imread(str(tmp_path / "losses.png"))
    assert picture.shape[1] > 1000
    assert picture.shape[0] >= 150 * (1.8 + 0.25 * (count - 1))


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
