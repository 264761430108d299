"""Tests of the timing metrics; none depends on a clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.bench.timing import (
    LATENCY_PARTS,
    Latency,
    percentiles,
    split,
    summarise,
    throughput_metrics,
    time_one,
)
from boneage_cli.core.prediction.cases import manifest_cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.training.outcome import Run
from boneage_cli.datasets.manifest import read_manifest


def test_times_are_summarised_as_statistics_says() -> None:
    assert summarise([1, 2, 3, 6]) == {
        "mean_ms": 3,
        "std_ms": pytest.approx(np.std([1, 2, 3, 6], ddof=1)),
        "min_ms": 1,
        "max_ms": 6,
        "median_ms": 2.5,
    }
    assert summarise([4.0])["std_ms"] == 0


def test_throughput_is_all_images_by_all_time() -> None:
    figures = throughput_metrics([100, 300], batch_size=8)
    assert figures["ms_per_image"] == 25
    assert figures["images_per_s"] == pytest.approx(2 * 8 / 0.4)


def test_percentiles_are_those_of_the_repetitions() -> None:
    assert percentiles(np.arange(101.0)) == {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
    assert set(percentiles(np.array([7.0])).values()) == {7}


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=7, max_size=7))
def test_the_parts_of_a_radiograph_s_time_add_up_to_it(times: list[float]) -> None:
    names = ("begun", "reading", "read", "rendered", "passing", "passed", "ended")
    marks = dict(zip(names, sorted(times), strict=True))
    parts = split(marks)
    assert tuple(parts) == LATENCY_PARTS
    assert sum(parts.values()) == pytest.approx(1000 * (marks["ended"] - marks["begun"]))
    assert min(parts.values()) >= -1e-9


def test_the_means_of_the_parts_add_up_to_the_mean_of_the_total() -> None:
    times = np.random.default_rng(0).uniform(1, 50, (len(LATENCY_PARTS), 40))
    figures = Latency(dict(zip(LATENCY_PARTS, times, strict=True))).to_dict()
    assert figures["repetitions"] == 40
    total = figures["parts"].pop("total")
    for key in ("mean_ms", "share"):
        assert sum(part[key] for part in figures["parts"].values()) == pytest.approx(total[key])
    assert total["share"] == 1
    assert total["p99_ms"] == pytest.approx(np.percentile(times.sum(axis=0), 99))


def test_a_predictor_tells_the_steps_of_a_radiograph_in_order_and_only_while_it_is_timed(
    demo_run: Run, demo_data: Path
) -> None:
    predictor = Predictor.load(demo_run.bundle, "cpu")
    case = next(iter(manifest_cases(read_manifest(demo_data, "test"))))
    assert set(time_one(predictor, case)) == set(LATENCY_PARTS)
    told: list[str] = []
    predictor.mark = told.append
    list(predictor.predict_files([case], force=True))
    assert told == ["reading", "read", "rendered", "passing", "passed"]
    time_one(predictor, case)
    assert len(told) == 5


def test_each_part_of_a_radiograph_s_time_lies_between_its_own_marks() -> None:
    names = ("begun", "reading", "read", "rendered", "passing", "passed", "ended")
    marks = dict(zip(names, (0, 1, 3, 7, 12, 23, 40), strict=True))
    assert split(marks) == {
        "read": pytest.approx(2000),
        "preprocess": pytest.approx(4000),
        "network": pytest.approx(11000),
        # Before reading, between preprocessing and the network, and after the network.
        "rest": pytest.approx(1000 + 5000 + 17000),
    }
