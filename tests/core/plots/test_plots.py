"""Tests of plots: their contents, and that they can be drawn for any data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from boneage_cli.core.evaluation.ages import evaluate_predictions, write_evaluation
from boneage_cli.core.evaluation.sexes import evaluate_sexes, write_sex_evaluation
from boneage_cli.core.plots.ages import bland_altman, scatter
from boneage_cli.core.plots.figure import BLUE, GREEN, GREY, ORANGE
from boneage_cli.core.plots.sexes import sexes
from boneage_cli.core.plots.speed import bars, by_batch_size
from boneage_cli.core.plots.stress import mae_increases
from boneage_cli.core.plots.training import learning_curve

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.uniform(5, 220, 60)
PREDICTED = TRUE + RANDOM.normal(0, 8, 60)


def drawn(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] > 400
    assert picture.shape[1] > 400
    return picture


def line(axes: Axes, label: str) -> np.ndarray:
    """Returns the points of the line whose label begins like this, (n, 2)."""
    (found,) = [each for each in axes.lines if str(each.get_label()).startswith(label)]
    return np.asarray(found.get_xydata(), float)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def history(epochs: int, **other: object) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    columns = {
        "train_loss": 30.0 / epoch,
        "val_loss": 40.0 / epoch,
        "train_mae": 10.0 / epoch,
        "val_mae": 20.0 / epoch,
    }
    return pd.DataFrame({"epoch": epoch, **columns, "learning_rate": 1e-3 / epoch, **other})


@pytest.mark.parametrize("epochs", [1, 12])
def test_a_learning_curve_shows_errors_loss_and_rate_of_each_epoch(
    tmp_path: Path, epochs: int
) -> None:
    table = history(epochs)
    figure = learning_curve(table, tmp_path / "curve.png")
    errors, loss, rate = figure.axes
    for axes, name in ((errors, "mae"), (loss, "loss")):
        for label, phase in (("training", "train"), ("validation", "val")):
            assert line(axes, label)[:, 1].tolist() == table[f"{phase}_{name}"].tolist()
    assert np.asarray(rate.lines[0].get_ydata()).tolist() == table["learning_rate"].tolist()
    assert "MAE (months)" in errors.get_ylabel()
    drawn(tmp_path / "curve.png")


def test_a_learning_curve_marks_the_epoch_with_the_smallest_error(tmp_path: Path) -> None:
    table = history(4, val_mae=[9.0, 7.0, 8.0, 10.0])
    errors, *_ = learning_curve(table, tmp_path / "curve.png").axes
    assert line(errors, "best: 7, epoch 2").tolist() == [[2, 7]]


def test_a_learning_curve_leaves_gaps_where_values_are_missing(tmp_path: Path) -> None:
    table = history(4, train_mae=np.nan, val_mae=[np.nan, 5.0, np.nan, 6.0])
    errors, *_ = learning_curve(table, tmp_path / "gaps.png").axes
    assert np.isnan(line(errors, "training")[:, 1]).all()
    assert np.isnan(line(errors, "validation")[:, 1]).tolist() == [True, False, True, False]
    assert line(errors, "best").tolist() == [[2, 5]]
    drawn(tmp_path / "gaps.png")


def test_a_learning_curve_of_a_model_of_sex_shows_its_errors(tmp_path: Path) -> None:
    table = history(4).rename(columns={"train_mae": "train_sex_error", "val_mae": "val_sex_error"})
    errors, *_ = learning_curve(table, tmp_path / "curve.png").axes
    assert "sex errors" in errors.get_ylabel()
    assert line(errors, "validation")[:, 1].tolist() == table["val_sex_error"].tolist()


def test_a_scatter_plot_shows_each_age_and_tells_girls_from_boys(tmp_path: Path) -> None:
    male = RANDOM.random(60) < 0.4
    (axes,) = scatter(TRUE, PREDICTED, tmp_path / "sexes.png", "title", male=male).axes
    girls, boys = axes.collections
    for points, rows, name, colour in (
        (girls, ~male, "girls", ORANGE),
        (boys, male, "boys", BLUE),
    ):
        np.testing.assert_allclose(
            points.get_offsets(), np.column_stack([TRUE[rows], PREDICTED[rows]])
        )
        assert points.get_label() == f"{name} ({rows.sum()})"
        assert to_hex(points.get_facecolor()[0]) == colour.lower()
    mae = np.abs(PREDICTED - TRUE).mean()
    assert axes.get_title(loc="left") == f"title\nMAE {mae:.2f} months, n = 60"
    equal = line(axes, "equal")
    assert (equal[:, 0] == equal[:, 1]).all()
    (plain,) = scatter(TRUE, PREDICTED, tmp_path / "plain.png").axes
    (all_of_them,) = plain.collections
    assert to_hex(all_of_them.get_facecolor()[0]) == BLUE.lower()


def test_a_bland_altman_plot_shows_differences_bias_and_limits_of_agreement(
    tmp_path: Path,
) -> None:
    (axes,) = bland_altman(TRUE, PREDICTED + 3, tmp_path / "bland_altman.png").axes
    differences = PREDICTED + 3 - TRUE
    (points,) = axes.collections
    np.testing.assert_allclose(
        points.get_offsets(), np.column_stack([(TRUE + PREDICTED + 3) / 2, differences])
    )
    bias, spread = differences.mean(), 1.96 * differences.std(ddof=1)
    said = [f"bias: {bias:+.1f}", f"+1.96 SD: {bias + spread:+.1f}"]
    said.append(f"−1.96 SD: {bias - spread:+.1f}".replace("-", "−"))
    assert texts(axes) == said
    heights = [float(np.asarray(each.get_ydata())[0]) for each in axes.lines]
    assert heights == pytest.approx([0, bias, bias + spread, bias - spread])


def test_a_plot_of_sexes_shows_thresholds_and_what_probabilities_are_worth(
    tmp_path: Path,
) -> None:
    male = np.array([True, True, True, False, False, False])
    probability = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
    curve, calibration = sexes(male, probability, tmp_path / "sexes.png", "title").axes
    roc = np.asarray(curve.lines[1].get_xydata())
    third = 1 / 3
    expected = [(0, 0), (0, third), (0, 2 * third), (third, 2 * third), (third, 1), (2 * third, 1)]
    np.testing.assert_allclose(roc, [*expected, (1, 1)])
    np.testing.assert_allclose(line(curve, "probability above 0.5"), [[third, 2 * third]])
    tenths = np.asarray(calibration.lines[1].get_xydata())
    order = np.argsort(probability)
    np.testing.assert_allclose(tenths, np.column_stack([probability, male])[order])
    assert curve.get_title(loc="left") == "title\n66.7% of sexes right, n = 6"
    drawn(tmp_path / "sexes.png")


def test_sexes_of_boys_alone_have_no_curve_and_are_drawn_all_the_same(tmp_path: Path) -> None:
    curve, _ = sexes(np.ones(3, bool), np.array([0.9, 0.4, 0.8]), tmp_path / "boys.png").axes
    assert len(curve.lines) == 1
    drawn(tmp_path / "boys.png")


def test_losses_stand_out_from_gains_and_from_what_shows_nothing(tmp_path: Path) -> None:
    lost = np.array([(3, 1, 30), (-3, -40, -1), (0.5, -1, 2), (0.001, 0.0001, 0.002)])
    names = ["lost", "won", "unclear", "nothing that two decimals show"]
    (axes,) = mae_increases(names, ["pose"] * 4, lost, tmp_path / "increases.png").axes
    _, *marks = axes.lines
    dots = [each for each in marks if each.get_marker() == "o"]
    assert [each.get_color() for each in dots] == [ORANGE, GREEN, GREY, GREY]
    assert texts(axes) == ["+3.00", "−3.00", "+0.50", "0.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == names


@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_plot_of_losses_grows_with_the_number_of_changes(tmp_path: Path, count: int) -> None:
    random = np.random.default_rng(count)
    lost = np.sort(random.normal(0, 1, (count, 3)) * 10 ** random.uniform(-3, 2, (count, 1)))
    names = [f"change {number}" for number in range(count)]
    groups = [f"group {number // 7}" for number in range(count)]
    mae_increases(names, groups, lost[:, [1, 0, 2]], tmp_path / "increases.png", "title", "figures")
    picture = cv2.imread(str(tmp_path / "increases.png"))
    assert picture.shape[1] > 1000
    assert picture.shape[0] >= 150 * (1.8 + 0.25 * (count - 1))


def test_networks_are_drawn_by_batch_size_each_in_its_own_style(tmp_path: Path) -> None:
    series = {
        f"network {number}": np.array([(1, 10.0 + number), (8, 50.0 + number)])
        for number in range(9)
    }
    (axes,) = by_batch_size(series, tmp_path / "sizes.png", "images/s").axes
    for name, points in series.items():
        np.testing.assert_allclose(line(axes, name), points)
    assert len({(each.get_color(), each.get_marker()) for each in axes.lines}) == len(series)


def test_bars_are_as_long_as_their_numbers_say(tmp_path: Path) -> None:
    (axes,) = bars(["a", "b"], np.array([1234.5, 0.5678]), tmp_path / "bars.png", "images/s").axes
    assert [bar.get_width() for bar in axes.patches] == [1234.5, 0.5678]
    assert texts(axes) == ["1,234", "0.568"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize("count", [1, 2, 60])
def test_plots_are_drawn_for_any_number_of_radiographs(tmp_path: Path, count: int) -> None:
    scatter(TRUE[:count], PREDICTED[:count], tmp_path / "scatter.png")
    bland_altman(TRUE[:count], PREDICTED[:count], tmp_path / "bland_altman.png", "title")
    sexes(TRUE[:count] > 100, PREDICTED[:count] / 300 + 0.1, tmp_path / "sexes.png")
    for name in ("scatter", "bland_altman", "sexes"):
        drawn(tmp_path / f"{name}.png")


def test_an_impossible_age_does_not_fill_a_plot_with_ticks(tmp_path: Path) -> None:
    true = np.append(TRUE, 1e9)
    for plot in (scatter, bland_altman):
        (axes,) = plot(true, true + 1, tmp_path / "plot.png").axes
        assert len(axes.get_xticks()) < 30
        assert len(axes.get_yticks()) < 30


def test_plots_drawn_at_the_same_time_are_the_same(tmp_path: Path) -> None:
    def draw(number: int) -> np.ndarray:
        bland_altman(TRUE, PREDICTED, tmp_path / f"{number}.png")
        return drawn(tmp_path / f"{number}.png")

    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(draw, range(4))
    assert all((other == first).all() for other in others)


def test_the_plots_beside_figures_take_girls_for_girls(tmp_path: Path) -> None:
    """The plots written by an evaluation equal those of its table, not those of swapped sexes."""
    male = np.arange(60) % 3 == 0
    rows = pd.DataFrame(
        {
            "id": [str(number) for number in range(60)],
            "boneage": TRUE,
            "male": pd.array(male, dtype="boolean"),
        }
    )
    probability = np.clip(male * 0.4 + RANDOM.uniform(0.1, 0.5, 60), 0, 1)
    write_evaluation(evaluate_predictions(rows, PREDICTED), tmp_path, "title")
    write_sex_evaluation(evaluate_sexes(rows, probability), tmp_path, "title")
    for sex, same in ((male, True), (~male, False)):
        scatter(TRUE, PREDICTED, tmp_path / "a.png", "title", male=sex)
        sexes(sex, probability, tmp_path / "b.png", "title")
        for written, expected in (("scatter.png", "a.png"), ("sex.png", "b.png")):
            alike = np.array_equal(drawn(tmp_path / written), drawn(tmp_path / expected))
            assert alike == same, written
