"""Promises about ``boneage bench``; none of them is about how fast this machine is."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.benchmarking import COLUMNS, PARTS
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.config import Experiment, write_experiment

PLOTS = ("throughput.png", "time-per-image.png", "best-throughput.png", "efficiency.png")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str, status: int = 0) -> Result:
        result = CliRunner().invoke(app, ["bench", *line.split()])
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def quick(demo_bundle: Path) -> str:
    """Options of a run that takes a second."""
    return f"--model {demo_bundle} --batch-sizes 1,2 --batch-size 2 --seconds 0.1 --device cpu"


def test_a_run_prints_and_writes_all_figures(bench, quick: str, demo_bundle: Path) -> None:
    result = bench(f"{quick} --reference --output out")
    table = pd.read_csv("out/bench.csv")
    assert tuple(table) == COLUMNS
    assert table["batch_size"].tolist() == [1, 2]
    assert table.notna().all(axis=None)
    assert (table["passes"] >= 3).all()
    assert (table["min_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] <= table["max_ms"]).all()
    weights = sum(p.numel() for p in load_bundle(demo_bundle).network().parameters())
    assert (table["parameters"] == weights).all()
    record = json.loads(Path("out/bench.json").read_text())
    latency = record["latency"]["parts"]
    assert tuple(latency) == (*PARTS, "total")
    parts = [latency[name]["mean_ms"] for name in PARTS]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(latency["total"]["mean_ms"])
    assert record["images"] == "8 drawn hands of 1536 × 1920 pixels"
    assert record["files"]["images"] >= 8
    naive = record["reference"]
    ratio = record["files"]["images_per_s"] / naive["images_per_s"]
    assert naive["ratio"] == pytest.approx(ratio)
    assert record["memory_mb"]["files"] >= record["memory_mb"]["loaded"] > 0
    for text in (*PARTS, "p50", "p95", "p99", "std", "median", "images/s", "from files", "naive"):
        assert text in result.stdout
    for word in ("memory", "hardware", "versions", f"{weights:,}", "64 × 56"):
        assert word in result.stdout


def test_radiographs_of_one_s_own_are_read(bench, quick: str, demo_data: Path) -> None:
    image = next((demo_data / "test").glob("*.png"))
    bench(f"{quick} --images {demo_data / 'validation'} --images {image} -s F")
    # Where no folder is named, its name is the time.
    (folder,) = Path().glob("bench-2*")
    assert {file.name for file in folder.iterdir()} == {"bench.csv", "bench.json"}
    record = json.loads((folder / "bench.json").read_text())
    assert record["images"].startswith("17 radiographs of ")


def test_networks_are_compared_and_ranked_without_training(
    bench, tiny: Experiment, demo_bundle: Path
) -> None:
    write_experiment(tiny, Path("tiny.toml"))
    result = bench(
        f"-c tiny.toml -b small_cnn,mobilenetv3_small_050 -m {demo_bundle} "
        "--batch-sizes 1,2 --seconds 0.1 -o out"
    )
    table = pd.read_csv("out/bench.csv")
    names = ["tiny", "tiny-small_cnn", "tiny-mobilenetv3_small_050"]
    assert table["model"].tolist() == [name for name in names for _ in (1, 2)]
    assert json.loads(Path("out/bench.json").read_text())["latency"] is None
    for heading in ("at the best batch size", "a batch of one image", "per million parameters"):
        _, _, ranked = result.stdout.partition(heading)
        assert all(name in ranked for name in names)


def test_a_report_ranks_two_results_and_draws_four_plots(bench, tiny: Experiment) -> None:
    write_experiment(tiny, Path("tiny.toml"))
    bench("-c tiny.toml --batch-sizes 1,2 --seconds 0.1 -o first")
    table = pd.read_csv("first/bench.csv")
    table["mean_ms"] /= 2
    table["ms_per_image"] /= 2
    table["images_per_s"] *= 2
    table.assign(hardware="twice as fast").to_csv("other.csv", index=False)
    result = bench("report first other.csv --output report")
    ranked = pd.read_csv("report/ranking.csv")
    assert len(ranked) == 2
    assert ranked.loc[0, "network"] == "tiny, twice as fast"
    assert ranked.loc[0, "images_per_s"] == pytest.approx(2 * ranked.loc[1, "images_per_s"], 1e-3)
    assert ranked.loc[1, "single_ms"] == pytest.approx(2 * ranked.loc[0, "single_ms"], 1e-3)
    assert result.stdout.count("tiny, twice as fast") == 3
    for name in PLOTS:
        assert min(cv2.imread(f"report/{name}").shape[:2]) > 400


def one_line(result: Result, *words: str) -> None:
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning")]
    assert all(word in line for word in words)


def test_an_unknown_backbone_is_one_line_before_anything_is_measured(bench) -> None:
    result = bench("--backbones small_cnn,resnet19 -o out", status=2)
    one_line(result, "resnet19", "resnet18")
    assert not Path("out").exists()


def test_what_bench_did_not_write_is_one_line(bench, demo_data: Path) -> None:
    one_line(bench("report absent.csv", status=2), "absent.csv")
    one_line(bench(f"report {demo_data}", status=2), "bench.csv", "boneage bench")
    one_line(bench(f"report {demo_data / 'test.csv'}", status=2), "test.csv", "no column model")
    assert not Path("bench-report").exists()


def test_an_unreadable_radiograph_ends_the_measurement(bench, quick: str) -> None:
    Path("broken.png").write_bytes(b"no image")
    one_line(bench(f"{quick} --images broken.png", status=2), "broken.png")


def test_files_and_networks_are_not_measured_at_once(bench) -> None:
    one_line(bench("-b small_cnn --reference", status=2), "--reference")
