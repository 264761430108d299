from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from boneage_cli.core.evaluation.ages import (
    PREDICTION_COLUMNS,
    evaluate_predictions,
    labelled_rows,
    write_evaluation,
)
from boneage_cli.core.evaluation.measuring import measure
from boneage_cli.core.evaluation.metrics import compute_metrics, mean_interval
from boneage_cli.core.prediction.cases import manifest_cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError, BoneageWarning


def manifest(ages, male=None, **columns) -> pd.DataFrame:
    count = len(ages)
    return pd.DataFrame(
        {
            "id": [str(number) for number in range(count)],
            "path": [f"{number}.png" for number in range(count)],
            "boneage": np.asarray(ages, float),
            "male": pd.array(male if male is not None else [True] * count, dtype="boolean"),
            **columns,
        }
    )


def test_the_figures_are_those_of_a_worked_example():
    metrics = compute_metrics(np.array([10.0, 20, 30, 40]), np.array([13.0, 14, 30, 65]))
    assert metrics.images == 4
    assert metrics.mae.value == pytest.approx((3 + 6 + 0 + 25) / 4)
    assert metrics.median_absolute_error == pytest.approx(4.5)
    assert metrics.rmse == pytest.approx(math.sqrt((9 + 36 + 625) / 4))
    assert metrics.bias.value == pytest.approx((3 - 6 + 0 + 25) / 4)
    assert metrics.within == {6: 0.75, 12: 0.75, 24: 0.75}
    assert metrics.r_squared == pytest.approx(1 - 167.5 / 125)
    assert metrics.correlation == pytest.approx(
        np.corrcoef([10, 20, 30, 40], [13, 14, 30, 65])[0, 1]
    )


def test_an_interval_agrees_with_the_normal_approximation_where_that_holds():
    values = np.random.default_rng(1).normal(5, 4, 2000)
    estimate = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_an_interval_holds_the_truth_about_95_times_in_100():
    random = np.random.default_rng(2)
    intervals = [mean_interval(random.normal(3, 2, 60), resamples=600) for _ in range(300)]
    covered = np.mean([estimate.low <= 3 <= estimate.high for estimate in intervals])
    assert 0.90 <= covered <= 0.98


def test_the_same_predictions_give_the_same_interval():
    true, predicted = np.random.default_rng(3).normal(120, 40, (2, 50))
    assert compute_metrics(true, predicted) == compute_metrics(true, predicted)


def test_the_bias_of_a_model_that_is_always_late_is_exact():
    true = np.arange(30.0)
    estimate = compute_metrics(true, true - 2).bias
    assert (estimate.value, estimate.low, estimate.high) == (-2, -2, -2)
    assert str(estimate) == "-2.00 (-2.00 to -2.00)"


def test_the_bootstrap_of_a_whole_training_set_fits_in_little_memory():
    tracemalloc.start()
    try:
        mean_interval(np.arange(12_000.0), resamples=500)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_groups_are_by_sex_and_by_known_age_and_leave_out_empty_ones():
    ages = [59.9, 60, 119.9, 180, 228, 240]
    table = manifest(ages, male=[True, False, None, True, True, True])
    found = evaluate_predictions(table, np.array(ages) + 1)
    assert {name: metrics.images for name, metrics in found.by_age.items()} == {
        "0–5 years": 1,
        "5–10 years": 2,
        "15 years and more": 3,
    }
    assert {name: metrics.images for name, metrics in found.by_sex.items()} == {
        "girls": 1,
        "boys": 4,
    }


def test_the_baseline_is_the_error_of_predicting_the_mean_training_age():
    found = evaluate_predictions(manifest([100, 140]), np.array([100, 140]), baseline=110)
    assert found.baseline_mae == pytest.approx(20)
    assert evaluate_predictions(manifest([100, 140]), np.array([100, 140])).baseline == 120


def test_radiographs_that_failed_are_counted_and_in_no_figure():
    found = evaluate_predictions(
        manifest([100, 140]), np.array([101, np.nan]), errors=[None, "truncated"]
    )
    assert (found.failed, found.overall.images, found.mae.value) == (1, 1, 1)
    assert found.overall.correlation is None
    assert found.overall.r_squared is None
    assert found.predictions["error"].tolist()[1] == "truncated"


def test_where_nothing_could_be_predicted_the_first_reason_is_told():
    with pytest.raises(BoneageError, match=r"none of 2 radiographs.*sex unknown"):
        evaluate_predictions(
            manifest([1, 2]), np.array([np.nan, np.nan]), errors=["sex unknown", "other"]
        )


def test_sex_id_and_true_aspect_of_a_manifest_reach_the_model():
    table = manifest([1, 2], male=[False, None], width=[100.0, np.nan], height=[200.0, np.nan])
    first, second = manifest_cases(table)
    assert (first.id, first.path, first.male, first.aspect) == ("0", "0.png", False, 0.5)
    assert (second.male, second.aspect) == (None, None)


def test_files_hold_what_the_evaluation_holds(tmp_path):
    ages = np.linspace(10, 220, 40)
    found = evaluate_predictions(
        manifest(ages, male=[True, False] * 20), ages + 3, about={"split": "test"}
    )
    files = write_evaluation(found, tmp_path / "out", "a title")
    assert [file.name for file in files] == [
        "metrics.json",
        "predictions.csv",
        "scatter.png",
        "bland_altman.png",
    ]
    metrics = json.loads(files[0].read_text())
    assert metrics["split"] == "test"
    assert metrics["mae"] == {"value": 3.0, "low": 3.0, "high": 3.0}
    assert metrics["within_6_months"] == 1
    assert metrics["by_sex"]["girls"]["images"] == 20
    table = pd.read_csv(files[1])
    assert tuple(table) == PREDICTION_COLUMNS
    assert table["absolute_error"].tolist() == pytest.approx([3] * 40)
    assert set(table["sex"]) == {"M", "F"}


@pytest.mark.parametrize("impossible", [500.0, -5.0, 0.0])
def test_ages_that_no_child_has_are_told_of(impossible):
    with pytest.warns(
        BoneageWarning, match=f"1 of 2 known bone ages are impossible .*{impossible:g}"
    ):
        labelled_rows(manifest([100, impossible]))


def test_the_figures_of_one_radiograph_are_json_without_nan(tmp_path):
    found = evaluate_predictions(manifest([100]), np.array([101]))
    files = write_evaluation(found, tmp_path)
    assert "NaN" not in files[0].read_text()


def test_a_manifest_without_labels_is_refused_and_one_with_some_counts_the_rest(
    demo_data, demo_bundle
):
    predictor = Predictor.load([demo_bundle], device="cpu")
    table = read_manifest(demo_data, "test")
    table.loc[table.index[:3], "boneage"] = np.nan
    found = measure(predictor, table).ages
    assert (found.unlabelled, found.overall.images) == (3, len(table) - 3)
    table["boneage"] = np.nan
    with pytest.raises(BoneageError, match=r"no radiograph here has a known bone age.*--split"):
        measure(predictor, table)
