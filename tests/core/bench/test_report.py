"""Tests of rankings of networks."""

from __future__ import annotations

import pandas as pd

from boneage_cli.core.bench.benchmark import COLUMNS
from boneage_cli.core.bench.report import by, named, ranking


def results(*rows: dict) -> pd.DataFrame:
    """Returns rows of a benchmark; only the relevant values are given."""
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
