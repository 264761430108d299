"""Tests of mixed precision: most of a network in bf16, with nearly the same ages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.conversion_cache import shipped_graph
from boneage_cli.core.hardware import cpu_has_bf16
from boneage_cli.core.mixed_precision import MIXED_PRECISION, PartsRequest, parts
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import SHIPPED_MODEL

openvino = pytest.importorskip("openvino")


def test_the_parts_of_the_package_s_network_give_what_the_whole_gives() -> None:
    path = shipped_graph(load_bundle(SHIPPED_MODEL).graph())
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    whole = core.compile_model(path, "CPU", settings).create_infer_request()
    found = parts(core.read_model(path))
    assert len(found) == 3
    requests = [
        core.compile_model(part.model, "CPU", settings).create_infer_request() for part in found
    ]
    request = PartsRequest(requests, [part.takes for part in found])
    random = np.random.default_rng(0)
    for male in (0.0, 1.0):
        pixels = random.integers(0, 256, whole.get_input_tensor(0).shape, np.uint8)
        whole.infer([pixels, np.array([male], np.float32)])
        request.infer([pixels, np.array([male], np.float32)])
        for number in range(2):
            expected = whole.get_output_tensor(number).data
            assert request.get_output_tensor(number).data == pytest.approx(expected, abs=1e-2)


def test_a_network_of_few_layers_stays_whole(demo_bundle: Path, tmp_path: Path) -> None:
    line = ["export", "--model", str(demo_bundle), "--format", "openvino"]
    exported = tmp_path / "demo.xml"
    result = CliRunner().invoke(app, [*line, "--output", str(exported)])
    assert result.exit_code == 0, result.output
    assert parts(openvino.Core().read_model(exported)) == []


@pytest.mark.skipif(cpu_has_bf16(), reason="this CPU has bf16")
def test_a_cpu_without_bf16_says_so() -> None:
    result = CliRunner().invoke(app, ["predict", "x.png", "--sex", "F", "--precision", "mixed"])
    assert result.exit_code == 2
    assert "is for CPUs with bf16; add --precision 32" in result.stderr


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
def test_only_a_model_that_bears_it_takes_it_by_itself(demo_bundle: Path, tmp_path: Path) -> None:
    assert Predictor.load(demo_bundle, device="cpu").precision == "32"
    bundle = load_bundle(demo_bundle)
    borne = tmp_path / "borne.safetensors"
    figures = {"images": 1000, "mean": 0.02, "max": 0.1}
    save_bundle(replace(bundle, metrics=bundle.metrics | {MIXED_PRECISION: figures}), borne)
    assert Predictor.load(borne, device="cpu").precision == "mixed"
    assert Predictor.load(borne, device="cpu", precision="32").precision == "32"
    assert Predictor.load(borne, device="cpu", backend="torch").precision == "32"
    assert Predictor.load([borne, demo_bundle], device="cpu").precision == "32"


def test_networks_are_not_trained_in_it() -> None:
    result = CliRunner().invoke(app, ["bench", "--train", "--precision", "mixed"])
    assert result.exit_code == 2
    assert "error: --precision mixed: is for predicting" in result.stderr
