"""Promises about the figures of speed and what is made of them; nothing here depends on a clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage_cli.core.bench.benchmarking import COLUMNS, parse_batch_sizes
from boneage_cli.core.bench.images import draw_radiographs
from boneage_cli.core.bench.report import by, named, ranking
from boneage_cli.core.bench.timing import (
    PARTS,
    Latency,
    percentiles,
    split,
    summarise,
    throughput_figures,
)
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.reading import read_radiograph


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
    figures = throughput_figures([100, 300], batch_size=8)
    assert figures["ms_per_image"] == 25
    assert figures["images_per_s"] == pytest.approx(2 * 8 / 0.4)


def test_percentiles_are_those_of_the_repetitions() -> None:
    assert percentiles(np.arange(101.0)) == {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
    assert set(percentiles(np.array([7.0])).values()) == {7}


@given(st.lists(st.floats(0, 10), min_size=7, max_size=7))
def test_the_parts_of_a_radiograph_s_time_add_up_to_it(times: list[float]) -> None:
    names = ("begun", "reading", "read", "rendered", "passing", "passed", "ended")
    marks = dict(zip(names, sorted(times), strict=True))
    parts = split(marks)
    assert tuple(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(1000 * (marks["ended"] - marks["begun"]))
    assert min(parts.values()) >= -1e-9


def test_the_means_of_the_parts_add_up_to_the_mean_of_the_total() -> None:
    times = np.random.default_rng(0).uniform(1, 50, (len(PARTS), 40))
    figures = Latency(dict(zip(PARTS, times, strict=True))).to_dict()
    assert figures["repetitions"] == 40
    total = figures["parts"].pop("total")
    for key in ("mean_ms", "share"):
        assert sum(part[key] for part in figures["parts"].values()) == pytest.approx(total[key])
    assert total["share"] == 1
    assert total["p99_ms"] == pytest.approx(np.percentile(times.sum(axis=0), 99))


def test_batch_sizes_are_sorted_and_each_is_taken_once() -> None:
    assert parse_batch_sizes("8, 1,4,8") == [1, 4, 8]


@pytest.mark.parametrize("text", ["", "0,1", "1,-4", "one", "1.5"])
def test_what_is_no_batch_size_is_refused(text: str) -> None:
    with pytest.raises(BoneageError, match="--batch-sizes"):
        parse_batch_sizes(text)


def test_drawn_radiographs_have_a_radiograph_s_size_and_are_the_same_each_time(
    tmp_path: Path,
) -> None:
    first, again = (draw_radiographs(tmp_path / name, True) for name in ("a", "b"))
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in again]
    assert {read_radiograph(path).pixels.shape for path in first} == {(1920, 1536)}


def results(*rows: dict) -> pd.DataFrame:
    """Rows of bench, of which only what matters is told."""
    usual = dict.fromkeys((*COLUMNS, "source"), "same") | {
        "batch_size": 1,
        "mean_ms": 10.0,
        "parameters": 1_000_000,
    }
    return pd.DataFrame([{**usual, **row} for row in rows])


def test_networks_are_ranked_by_throughput_latency_and_efficiency() -> None:
    table = named(
        results(
            {"model": "small", "batch_size": 1, "mean_ms": 10.0, "images_per_s": 100.0},
            {"model": "small", "batch_size": 8, "mean_ms": 40.0, "images_per_s": 200.0},
            {"model": "large", "mean_ms": 5.0, "images_per_s": 200.0, "parameters": 8_000_000},
            {
                "model": "large",
                "batch_size": 4,
                "mean_ms": 10.0,
                "images_per_s": 400.0,
                "parameters": 8_000_000,
            },
            {"model": "batches", "batch_size": 16, "mean_ms": 160.0, "images_per_s": 100.0},
        )
    )
    networks = ranking(table)
    assert networks["network"].tolist() == ["large", "small", "batches"]
    assert networks["best_batch"].tolist() == [4, 8, 16]
    assert networks["images_per_s"].tolist() == [400, 200, 100]
    quickest = by(networks, "single_ms", more_is_better=False)
    assert quickest[["network", "single_ms"]].to_numpy().tolist() == [["large", 5], ["small", 10]]
    efficient = by(networks, "images_per_s_per_million", more_is_better=True)
    assert efficient["network"].tolist() == ["small", "batches", "large"]
    assert efficient["images_per_s_per_million"].tolist() == [200, 100, 50]


def test_networks_are_named_with_what_is_not_the_same_of_all() -> None:
    alike = results({"model": "a"}, {"model": "b", "source": "x"})
    assert named(alike)["network"].tolist() == ["a", "b"]
    table = results(
        {"model": "a", "precision": "32"},
        {"model": "b", "precision": "mixed", "source": "x"},
        {"model": "b", "precision": "32", "source": "x"},
        {"model": "c", "precision": "32", "source": "x"},
        {"model": "c", "precision": "32", "source": "y"},
    )
    expected = ["a, 32", "b, mixed", "b, 32", "c, 32, x", "c, 32, y"]
    assert named(table)["network"].tolist() == expected
