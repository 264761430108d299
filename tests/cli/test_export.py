"""Tests of ``boneage export``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import load_bundle, save_bundle
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.imaging.perturbations import dicom_bytes
from boneage_cli.imaging.reading import read_radiograph

RUNTIMES = {"onnx": ("onnxruntime", ".onnx"), "openvino": ("openvino", ".xml")}


@pytest.fixture
def export(demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(line: str = "", status: int = 0, model: Path = demo_bundle):
        result = CliRunner().invoke(app, ["export", "--model", str(model), *line.split()])
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def corrected(demo_bundle: Path, tmp_path: Path) -> Path:
    """A model that was recalibrated for girls."""
    path = tmp_path / "corrected.safetensors"
    save_bundle(replace(load_bundle(demo_bundle), correction={"F": (7.0, 0.5)}), path)
    return path


def months_of(runtime: str, file: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    if runtime == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return session.run(["months"], arrays)[0]
    import openvino

    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(file, "CPU", precise)(arrays)["months"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_exported_model_gives_the_months_of_predict_in_batches_of_any_size(
    export, runtime: str, corrected: Path, demo_data: Path
) -> None:
    package, ending = RUNTIMES[runtime]
    pytest.importorskip(package)
    result = export(f"--format {runtime} --output model{ending}", model=corrected)
    assert "hand: uint8 (batch, 1, 64, 56)" in result.stdout
    assert "8 drawn hands, as girls and as boys: at most 0.0000" in result.stdout
    assert ("INFERENCE_PRECISION_HINT set to f32" in result.stdout) == (runtime == "openvino")
    predictor = Predictor.load([corrected], device="cpu", precision="32")
    hands = [read_radiograph(path) for path in read_manifest(demo_data, "test")["path"][:5]]
    pixels = np.stack([next(iter(predictor.render(hand).values()))["hand"] for hand in hands])
    male = np.array([0, 1, 0, 1, 1], np.float32)
    for batch in (slice(0, 1), slice(0, 5)):
        months = months_of(
            runtime, Path(f"model{ending}"), {"hand": pixels[batch, None], "male": male[batch]}
        )
        expected = predictor.predict(hands[batch], [bool(sex) for sex in male[batch]])
        assert months == pytest.approx(expected, abs=0.01)


def test_settings_and_provenance_travel_in_the_file(export, demo_bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    export("--output model.onnx")
    (about,) = onnx.load("model.onnx").metadata_props
    told = json.loads(about.value)
    assert told["experiment"] == load_bundle(demo_bundle).experiment.model_dump(mode="json")
    assert "not a medical device" in told["output"]
    assert told["provenance"] == load_bundle(demo_bundle).provenance
    assert told["provenance"]["data"] == "demo"
    export("--output model.xml")
    in_xml = Path("model.xml").read_text(encoding="utf-8")
    assert "not a medical device" in in_xml
    assert told["provenance"]["data_digest"] in in_xml


def test_radiographs_of_the_user_s_own_are_compared_on(export, demo_data: Path) -> None:
    # The suffix selects the format.
    result = export(f"--output a.xml --images {demo_data / 'test'}")
    assert "16 radiographs, as girls and as boys" in result.stdout
    assert {path.name for path in Path().iterdir()} == {"a.xml", "a.bin"}


def test_a_row_that_makes_no_sense_is_told_of(export) -> None:
    Path("children.csv").write_text("path,sex\n,F\n")
    result = export("--output a.onnx --images children.csv", status=2)
    assert "children.csv, line 2: neither a path nor an id" in result.stderr


def test_a_name_that_does_not_fit_the_format_is_refused(export) -> None:
    assert "ends .xml" in export("--format openvino --output model.onnx", status=2).stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_differs_from_torch_is_not_written(
    export, runtime: str, demo_bundle: Path, tmp_path: Path
) -> None:
    package, ending = RUNTIMES[runtime]
    pytest.importorskip(package)
    # What is no number equals nothing.
    broken = tmp_path / "broken" / "model.safetensors"
    whole = load_bundle(demo_bundle)
    weights = {name: tensor * torch.nan for name, tensor in whole.weights.items()}
    save_bundle(replace(whole, weights=weights), broken)
    result = export(f"--format {runtime} --output model{ending}", status=2, model=broken)
    told = " ".join(result.stderr.split())
    assert f"model{ending}: not written: months of the exported model is" in told
    assert [path.name for path in Path().iterdir()] == ["broken"]


@pytest.mark.parametrize("name", ["mine.xml", "mine.onnx"])
def test_only_an_exported_model_is_replaced(export, name: str) -> None:
    pytest.importorskip("onnxruntime" if name.endswith("onnx") else "openvino")
    Path(name).write_text("<mine/>")
    assert "was not written by this command" in export(f"--output {name}", status=2).stderr
    assert Path(name).read_text() == "<mine/>"
    Path(name).unlink()
    for _ in range(2):
        export(f"--output {name}")


def test_an_exported_model_goes_where_a_link_points(export) -> None:
    pytest.importorskip("openvino")
    Path("store").mkdir()
    Path("model.xml").symlink_to("store/model.xml")
    export("--output model.xml")
    assert Path("model.xml").is_symlink()
    assert {path.name for path in Path("store").iterdir()} == {"model.xml", "model.bin"}


def test_weights_of_something_else_are_not_replaced(export) -> None:
    Path("model.bin").write_bytes(b"mine")
    assert "model.bin: is there already" in export("--output model.xml", status=2).stderr
    assert Path("model.bin").read_bytes() == b"mine"


def test_reports_of_an_archive_are_left_out_of_the_comparison(export, demo_data: Path) -> None:
    image = read_radiograph(next((demo_data / "test").glob("*.png")))
    Path("archive").mkdir()
    Path("archive/IM2").write_bytes(dicom_bytes(image))
    report = dcmread("archive/IM2")
    del report.Rows, report.Columns, report.PixelData
    report.SOPClassUID = BasicTextSRStorage
    report.save_as("archive/IM1")
    assert "checked    1 radiograph," in export("--images archive").stdout
    Path("archive/IM2").unlink()
    assert "archive: no radiograph in it" in export("--images archive", status=2).stderr
