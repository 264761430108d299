"""Tests of ``boneage bench``; none depends on this machine's speed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bench.benchmark import COLUMNS
from boneage_cli.core.bench.step_timing import STEP_PARTS
from boneage_cli.core.bench.timing import LATENCY_PARTS
from boneage_cli.core.bench.training import COLUMNS as TRAINING_COLUMNS
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import write_experiment
from boneage_cli.imaging.perturbations import dicom_bytes
from boneage_cli.imaging.radiograph import Radiograph

PLOTS = ("throughput.png", "time-per-image.png", "best-throughput.png", "efficiency.png")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str, status: int = 0) -> Result:
        result = CliRunner().invoke(app, ["bench", *line.split()])
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def quick(demo_bundle: Path) -> str:
    """Options of a benchmark that takes one second."""
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
    assert tuple(latency) == (*LATENCY_PARTS, "total")
    parts = [latency[name]["mean_ms"] for name in LATENCY_PARTS]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(latency["total"]["mean_ms"])
    assert record["images"] == "8 drawn hands of 1536 × 1920 pixels"
    assert record["files"]["images"] >= 8
    naive = record["reference"]
    ratio = record["files"]["images_per_s"] / naive["images_per_s"]
    assert naive["ratio"] == pytest.approx(ratio)
    assert record["memory_mb"]["files"] >= record["memory_mb"]["loaded"] > 0
    for text in (
        *LATENCY_PARTS,
        "p50",
        "p95",
        "p99",
        "std",
        "median",
        "images/s",
        "from files",
        "naive",
    ):
        assert text in result.stdout
    for word in ("memory", "hardware", "versions", f"{weights:,}", "64 × 56"):
        assert word in result.stdout


def test_radiographs_of_one_s_own_are_read(bench, quick: str, demo_data: Path) -> None:
    image = next((demo_data / "test").glob("*.png"))
    bench(f"{quick} --images {demo_data / 'validation'} --images {image} -s F")
    # Without --output the folder is named after the time.
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


def test_networks_of_other_sizes_are_told_apart_by_them(bench, tiny: Experiment) -> None:
    wide = tiny.preprocessing.model_copy(update={"width": 96})
    write_experiment(tiny, Path("tiny.toml"))
    write_experiment(
        tiny.model_copy(update={"name": "wide", "preprocessing": wide}), Path("wide.toml")
    )
    result = bench("-c tiny.toml -c wide.toml --batch-sizes 1 --seconds 0.1 -o out")
    assert "tiny, 64 × 56" in result.stdout
    assert "wide, 64 × 96" in result.stdout


def test_backends_are_held_against_torch(bench, demo_bundle: Path, demo_data: Path) -> None:
    options = f"--model {demo_bundle} --batch-sizes 1,2 --seconds 0.1 --device cpu --output out"
    result = bench(f"{options} --backends torch,openvino --images {demo_data / 'test'}")
    assert "openvino" in result.stdout
    record = json.loads(Path("out/bench.json").read_text(encoding="utf-8"))
    torch, openvino = record["differences"]
    assert (torch["backend"], torch["largest_months"]) == ("torch", 0)
    assert (openvino["images"], openvino["largest_months"] < 0.01) == (16, True)
    assert openvino["mean_months"] <= openvino["largest_months"] <= 16 * openvino["mean_months"]
    assert set(pd.read_csv("out/bench.csv")["backend"]) == {"torch", "openvino"}


@pytest.mark.parametrize(
    "options",
    [
        *("--backends tensorrt", "--backends torch --reference"),
        *("--backends torch --backbones m46", "--backends torch --workers 2"),
    ],
)
def test_what_backends_do_not_take_is_one_line(bench, options: str) -> None:
    assert "--backends" in bench(options, status=2).stderr


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
    whole = pd.read_csv("first/bench.csv")
    for column, cell, said in (
        ("model", None, "a row names no model"),
        ("parameters", "inf", "parameters must be a number above 0"),
        ("images_per_s", "inf", "images_per_s must be a number above 0"),
    ):
        whole.astype(object).assign(**{column: cell}).to_csv("damaged.csv", index=False)
        one_line(bench("report damaged.csv", status=2), "damaged.csv", said)


def one_line(result: Result, *words: str) -> None:
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning")]
    assert all(word in line for word in words)


def test_an_unknown_backbone_is_one_line_before_anything_is_measured(bench) -> None:
    result = bench("--backbones small_cnn,resnet19 -o out", status=2)
    one_line(result, "resnet19", "resnet18")
    assert not Path("out").exists()


def test_what_bench_did_not_write_is_one_line(bench, demo_data: Path) -> None:
    one_line(bench("report absent.csv", status=2), "absent.csv")
    one_line(bench("--seconds 5 report absent.csv", status=2), "--seconds with report")
    one_line(bench(f"report {demo_data}", status=2), "bench.csv", "boneage bench")
    one_line(bench(f"report {demo_data / 'test.csv'}", status=2), "test.csv", "no column model")
    assert not Path("bench-report").exists()


def test_an_unreadable_radiograph_ends_the_measurement(bench, quick: str) -> None:
    Path("broken.png").write_bytes(b"no image")
    one_line(bench(f"{quick} --images broken.png", status=2), "broken.png")


def test_a_row_that_makes_no_sense_ends_the_measurement(bench, quick: str) -> None:
    Path("children.csv").write_text("path,sex\n,F\n")
    one_line(bench(f"{quick} --images children.csv", status=2), "children.csv, line 2: neither")


def test_what_the_naive_loop_does_not_read_is_told_before_anything_is_timed(
    bench, quick: str
) -> None:
    Path("hand.dcm").write_bytes(dicom_bytes(Radiograph(np.full((90, 80), 99, np.uint8))))
    result = bench(f"{quick} --images hand.dcm --reference", status=2)
    one_line(result, "hand.dcm: --reference reads with OpenCV alone")


def test_an_earlier_measurement_stays(bench, quick: str) -> None:
    bench(f"{quick} --output out")
    before = Path("out/bench.json").read_bytes()
    one_line(bench(f"{quick} --output out", status=2), "out: holds a measurement")
    assert Path("out/bench.json").read_bytes() == before


@pytest.mark.parametrize(
    "options", ["--reference", "--images a.png", "--sex F", "--batch-size 5", "--workers 7"]
)
def test_files_and_networks_are_not_measured_at_once(bench, options: str) -> None:
    one_line(bench(f"-b small_cnn {options}", status=2), options.split()[0], "--backbones")


@pytest.fixture
def quick_training(demo_data: Path, tiny: Experiment, bench) -> str:
    """Options of a training benchmark that takes seconds."""
    write_experiment(tiny, Path("tiny.toml"))
    return f"--train --data {demo_data} -c tiny.toml --seconds 0.1 --device cpu -o out"


def test_training_is_measured_on_real_data_and_synthetic_tensors(
    bench, quick_training: str, demo_data: Path, demo_bundle: Path
) -> None:
    result = bench(quick_training)
    table = pd.read_csv("out/train-bench.csv")
    assert tuple(table) == TRAINING_COLUMNS
    assert table.notna().all(axis=None)
    assert table["data"].tolist() == ["real", "synthetic"]
    weights = sum(p.numel() for p in load_bundle(demo_bundle).network().parameters())
    for column, expected in {
        "model": "tiny",
        "train_images": 64,
        "batch_size": 16,
        "parameters": weights,
        "pixels": "64 × 56",
        "device": "cpu",
        "precision": 32,
    }.items():
        assert (table[column] == expected).all()
    assert (table["epochs"] >= 3).all()
    assert (table["steps"] >= table["epochs"]).all()
    assert (table["epoch_s"] * table["images_per_s"]).tolist() == pytest.approx([64, 64], rel=1e-3)
    steps = table["ms_per_step"] * table["images_per_s"]
    assert steps.tolist() == pytest.approx([1000 * 16] * 2, rel=1e-3)
    assert table["share_of_synthetic"][1] == 1
    assert (table[[f"{part}_ms" for part in STEP_PARTS]] > 0).all(axis=None)
    assert table["share_of_peak"].between(0, 1).all()
    (record,) = json.loads(Path("out/train-bench.json").read_text())["measurements"]
    assert record["about"]["data"] == str(demo_data)
    (network,) = record["networks"]
    assert sum(network["shares"].values()) == pytest.approx(1)
    assert "convolution_backward" in network["operators"]
    assert [row["data"] for row in record["rows"]] == ["real", "synthetic"]
    for text in (
        *STEP_PARTS,
        "images/s",
        "s per epoch",
        "arithmetic",
        "held back",
        "operators",
    ):
        assert text in result.stdout
    # No run folder, model or log is left.
    assert {path.name for path in Path().iterdir()} == {"tiny.toml", "out"}


def test_a_second_measurement_of_training_is_added_to_the_first(
    bench, quick_training: str, tiny: Experiment
) -> None:
    bench(quick_training)
    first = pd.read_csv("out/train-bench.csv")
    # The option overrides the file; few CPUs have bf16.
    slow = tiny.training.model_copy(update={"precision": "bf16"})
    write_experiment(tiny.model_copy(update={"training": slow}), Path("tiny.toml"))
    bench(f"{quick_training} -b small_cnn,mobilenetv3_small_050 --precision 32")
    table = pd.read_csv("out/train-bench.csv")
    assert table["model"].tolist() == [
        name for name in ("tiny", "tiny-small_cnn", "tiny-mobilenetv3_small_050") for _ in (1, 2)
    ]
    assert table["precision"].tolist() == [32] * 6
    assert table["images_per_s"][:2].tolist() == first["images_per_s"].tolist()
    assert len(json.loads(Path("out/train-bench.json").read_text())["measurements"]) == 2


def test_training_is_measured_on_drawn_hands_where_no_data_set_is_named(
    bench, tiny: Experiment
) -> None:
    write_experiment(tiny, Path("tiny.toml"))
    result = bench("--train -c tiny.toml --seconds 0.1 --device cpu")
    assert "drawn hands" in result.stdout
    assert "--data" in result.stdout
    (folder,) = Path().glob("bench-2*")
    assert pd.read_csv(folder / "train-bench.csv")["train_images"].tolist() == [32, 32]


@pytest.mark.parametrize(
    "options",
    [
        "--images hand.png",
        "--reference",
        "--model a.safetensors",
        "--batch-sizes 1,4,8,16,32",
        "--batch-size 8",
        "--workers 2",
        "--sex M",
    ],
)
def test_what_training_does_not_take_is_one_line(bench, options: str) -> None:
    one_line(bench(f"--train {options} -o out", status=2), options.split()[0], "--train")
    assert not Path("out").exists()


def test_what_training_alone_takes_is_one_line_elsewhere(bench, demo_data: Path) -> None:
    one_line(bench(f"--data {demo_data}", status=2), "--data", "--train")
    one_line(bench("--cache somewhere", status=2), "--cache", "--train")


def test_mistakes_are_one_line_before_any_training(bench, quick_training: str) -> None:
    one_line(bench(f"{quick_training} -b resnet19", status=2), "resnet19", "resnet18")
    one_line(bench("--train --data absent", status=2), "absent", "boneage fetch")
    one_line(bench(f"{quick_training} --precision fp16", status=2), "fp16", "32 or bf16")
    Path("out").mkdir()
    Path("out/train-bench.json").write_text("{}")
    one_line(bench(quick_training, status=2), "train-bench.json", "--output")
