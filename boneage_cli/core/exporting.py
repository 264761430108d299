"""Export of models to ONNX and OpenVINO files, which map pixels to predictions.

The graph includes the normalisation of gray values, as the network does, but not the cropping of
the hand. An exported model's outputs are compared with torch before the file is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from boneage_cli import __version__
from boneage_cli.choices import ExportFormat
from boneage_cli.core.bundle import Bundle, load_as_one
from boneage_cli.core.conversion import Graph, convert_to_openvino, write_onnx
from boneage_cli.core.overwriting import check_export_output
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.inputs import some_cases
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runtime import check_packages
from boneage_cli.core.views import Rendered
from boneage_cli.datasets.drawn_hands import draw_hand
from boneage_cli.errors import BoneageError
from boneage_cli.files import behind_link, explaining_write_errors, whole_file
from boneage_cli.imaging.radiograph import Radiograph

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}

TOLERANCES = {"months": 0.01, "male_probability": 0.001}
"""Largest allowed difference of each output between an exported model and torch."""

# Number of drawn hands that are used if no radiographs are given, and of given ones at most.
_DRAWN, _MOST = 8, 32
# In the metadata of every exported model.
_MARK = "a research tool, not a medical device"


@dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        format: The format.
        files: The files written; first the one to open.
        inputs: The data type and shape of each input, by name.
        images: Number of images on which it was compared with torch.
        sexes: Whether each image was compared both as a girl's and as a boy's; only if the model
            takes the sex.
        differences: The largest difference found for each output.
    """

    format: ExportFormat
    files: tuple[Path, ...]
    inputs: dict[str, str]
    images: int
    sexes: bool
    differences: dict[str, float]


def export_model(
    model: Path,
    format: ExportFormat | None = None,
    output: Path | None = None,
    images: Sequence[str] = (),
) -> Export:
    """Writes a model for ONNX Runtime or OpenVINO, and compares its outputs with torch.

    Args:
        model: The bundle, or a run's folder; see ``load_as_one``.
        format: ``onnx``: one .onnx file; ``openvino``: an .xml and a .bin file; None for that of
            the output, else ``onnx``.
        output: The file to open, .onnx or .xml; None for one in the current folder, named after
            the model's settings.
        images: Radiographs, folders or lists to compare on; none for drawn hands.

    Raises:
        BoneageError: A package is missing, there are no such radiographs, the file cannot be
            written or is there and is no exported model, or an output differs by more than
            ``TOLERANCES``, in which case nothing is kept.
    """
    if format is None:
        named_xml = output is not None and output.suffix.lower() == SUFFIXES["openvino"]
        format = "openvino" if named_xml else "onnx"
    bundle = load_as_one(model)
    output = behind_link(output or Path(bundle.experiment.name + SUFFIXES[format]))
    check_packages(f"--format {format}", "onnxruntime" if format == "onnx" else "openvino")
    if output.suffix != SUFFIXES[format]:
        raise BoneageError(
            f"{output}: --format {format} writes a file that ends {SUFFIXES[format]}; name it so"
        )
    check_export_output(output, _MARK)
    weights = output.with_suffix(".bin")
    if format == "openvino" and weights.exists() and not output.exists():
        raise BoneageError(
            f"{weights}: is there already without {output.name}; choose another name"
        )
    predictor = Predictor([bundle], device="cpu", precision="32", backend="torch")
    graph = bundle.graph(with_features=False)
    arrays = _inputs(predictor, graph, some_cases(images, most=_MOST) if images else [])
    with torch.inference_mode():
        given = graph.make()(*map(torch.from_numpy, arrays.values()))
    expected = {name: tensor.numpy() for name, tensor in zip(graph.outputs, given, strict=True)}
    with TemporaryDirectory() as folder:
        made = Path(folder, output.name)
        write = _write_onnx if format == "onnx" else _write_openvino
        write(graph, made, _about(bundle))
        run = _run_onnx if format == "onnx" else _run_openvino
        found = run(made, arrays, graph.outputs)
        differences = {
            name: float(np.abs(found[name] - expected[name]).max()) for name in graph.outputs
        }
        for name, difference in differences.items():
            # Negated so that NaN fails, too.
            if not difference <= TOLERANCES[name]:
                raise BoneageError(
                    f"{output}: not written: {name} of the exported model is {difference:.3g} from "
                    f"torch, {TOLERANCES[name]} is allowed; please report this with the versions "
                    "of both"
                )
        files = tuple(
            output.with_suffix(file.suffix) for file in sorted(Path(folder).iterdir(), reverse=True)
        )
        with explaining_write_errors(output):
            # The weights are written before the graph that refers to them.
            for file in reversed(files):
                with whole_file(file) as temporary:
                    temporary.write_bytes(made.with_suffix(file.suffix).read_bytes())
    shapes = {
        name: f"{array.dtype} (batch{''.join(f', {size}' for size in array.shape[1:])})"
        for name, array in arrays.items()
    }
    sexes = "male" in arrays
    count = len(next(iter(arrays.values()))) // (2 if sexes else 1)
    return Export(format, files, shapes, count, sexes, differences)


def _inputs(predictor: Predictor, graph: Graph, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Inputs to compare on, by name: each image as a girl's and a boy's if the sex is an input."""
    views = [_only(predictor.render(radiograph)) for radiograph in _radiographs(cases)]
    arrays: dict[str, np.ndarray] = {}
    for name in graph.inputs:
        if name == "male":
            arrays[name] = np.tile(np.array([0, 1], np.float32), len(views))
        else:
            stacked = np.stack([rendered[name] for rendered in views])[:, None]
            arrays[name] = np.repeat(stacked, 2, axis=0) if "male" in graph.inputs else stacked
    return arrays


def _only(pixels: dict[Any, Rendered]) -> Rendered:
    (rendered,) = pixels.values()
    return rendered


def _radiographs(cases: Sequence[Case]) -> Iterable[Radiograph]:
    if cases:
        return (case.read() for case in cases)
    ages = np.linspace(18, 216, _DRAWN)
    chance = np.random.default_rng(0)
    return (
        Radiograph(draw_hand(float(age), bool(number % 2), rng=chance).pixels)
        for number, age in enumerate(ages)
    )


def _about(bundle: Bundle) -> str:
    return json.dumps(
        {
            "software": f"boneage {__version__}",
            "output": " and ".join(bundle.outputs) + f"; {_MARK}",
            "experiment": bundle.experiment.model_dump(mode="json"),
            "provenance": bundle.provenance,
        }
    )


def _write_onnx(graph: Graph, path: Path, about: str) -> None:
    import onnx

    write_onnx(graph, path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"boneage": about})
    onnx.save(model, path)


def _run_onnx(
    path: Path, arrays: dict[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), arrays)
    return {name: np.asarray(each) for name, each in zip(outputs, found, strict=True)}


def _write_openvino(graph: Graph, path: Path, about: str) -> None:
    import openvino

    model = convert_to_openvino(graph)
    model.set_rt_info(about, ["boneage"])
    openvino.save_model(model, path, compress_to_fp16=False)


def _run_openvino(
    path: Path, arrays: dict[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    import openvino

    # OpenVINO's default on CPUs with bf16 is bf16, whose error is not the export's.
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", precise)
    found = model(arrays)
    return {name: np.asarray(found[name]) for name in outputs}
