"""A model for other runtimes: ONNX and OpenVINO files that take pixels and give months.

Normalisation of gray values is part of the graph, as it is of the network; cutting the hand out of
a radiograph is not. What an exported file says is held against torch before it is kept.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from boneage_cli import __version__
from boneage_cli.core.bundle import Bundle
from boneage_cli.core.cases import Case
from boneage_cli.core.prediction import Predictor, corrected
from boneage_cli.core.views import Rendered
from boneage_cli.datasets.demo import draw_hand
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file, writing
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.models.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

Format = Literal["onnx", "openvino"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml"}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}

TOLERANCE = 0.01
"""Months by which an exported model may differ from torch."""

# Drawn hands stand in where no radiographs are given.
_DRAWN = 8


@dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        files: What was written, the one to open first.
        inputs: The name and shape of each input.
        images: On how many images it was held against torch, each as a boy and as a girl.
        difference: The largest difference found, months.
    """

    files: tuple[Path, ...]
    inputs: dict[str, str]
    images: int
    difference: float


class ExportedNetwork(nn.Module):
    """A network as the exported file holds it: pixels of each view, and the sex, to months.

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.network: Network = bundle.network()
        self.correction = bundle.correction
        self.views = self.network.views
        self.takes_sex = bundle.experiment.model.gender
        self.needs_sex = bundle.needs_sex

    def forward(self, *inputs: Tensor) -> Tensor:
        """Months, (B,), of uint8 views (B, 1, H, W) in order and, where needed, the sex (B,)."""
        views = dict(zip(self.views, inputs, strict=False))
        male = inputs[len(self.views)] if self.needs_sex else inputs[0].new_zeros(len(inputs[0]))
        months = self.network(views, male if self.takes_sex else None)["age"]
        return corrected(months, self.correction, male)


def export_model(
    bundle: Bundle, format: Format, output: Path, cases: Sequence[Case] = ()
) -> Export:
    """Writes a model for ONNX Runtime or OpenVINO, and holds it against torch.

    Args:
        bundle: The model.
        format: ``onnx``: one .onnx file; ``openvino``: an .xml file and a .bin file beside it.
        output: The file to open, .onnx or .xml.
        cases: Radiographs to compare on; without any, drawn hands.

    Raises:
        BoneageError: A package is missing, the model predicts no age, the file cannot be written,
            or months differ by more than ``TOLERANCE``, in which case nothing is kept.
    """
    _check_packages(format)
    if output.suffix != SUFFIXES[format]:
        raise BoneageError(
            f"{output}: --format {format} writes a file that ends {SUFFIXES[format]}"
        )
    predictor = Predictor([bundle], device="cpu", precision="32")
    network = ExportedNetwork(bundle).eval()
    arrays = _inputs(predictor, network, cases)
    with torch.inference_mode():
        expected = network(*map(torch.from_numpy, arrays.values())).numpy()
    with TemporaryDirectory() as folder, _quiet():
        made = Path(folder, output.name)
        write = _write_onnx if format == "onnx" else _write_openvino
        write(network, arrays, made, _about(bundle))
        run = _run_onnx if format == "onnx" else _run_openvino
        difference = float(np.abs(run(made, arrays) - expected).max())
        # A NaN is no agreement either.
        if not difference <= TOLERANCE:
            raise BoneageError(
                f"{output}: not written: the exported model is {difference:.3f} months from torch, "
                f"{TOLERANCE} are allowed; please report this with the versions of both"
            )
        files = tuple(
            output.with_suffix(file.suffix) for file in sorted(Path(folder).iterdir(), reverse=True)
        )
        with writing(output):
            for file in files:
                with whole_file(file) as temporary:
                    temporary.write_bytes(made.with_suffix(file.suffix).read_bytes())
    shapes = {
        name: f"{array.dtype} (batch{''.join(f', {size}' for size in array.shape[1:])})"
        for name, array in arrays.items()
    }
    return Export(files, shapes, len(expected) // 2, difference)


def _check_packages(format: Format) -> None:
    missing = [name for name in _PACKAGES[format] if find_spec(name) is None]
    if missing:
        raise BoneageError(
            f"--format {format}: needs {', '.join(missing)}; install with: "
            "pip install 'boneage[export]'"
        )


def _inputs(
    predictor: Predictor, network: ExportedNetwork, cases: Sequence[Case]
) -> dict[str, np.ndarray]:
    """The inputs to compare on, by name: each image as a girl and as a boy."""
    views = [predictor.render(radiograph) for radiograph in _radiographs(cases)]
    arrays: dict[str, np.ndarray] = {}
    for name in network.views:
        stacked = np.stack([_only(rendered)[name] for rendered in views])[:, None]
        arrays[name] = np.repeat(stacked, 2, axis=0)
    if network.needs_sex:
        arrays["male"] = np.tile(np.array([0, 1], np.float32), len(views))
    return arrays


def _only(pixels: dict[Any, Rendered]) -> Rendered:
    (rendered,) = pixels.values()
    return rendered


def _radiographs(cases: Sequence[Case]) -> Iterable[Radiograph]:
    if cases:
        return (read_radiograph(case.path) for case in cases)
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
            "output": "months; a research tool, not a medical device",
            "experiment": bundle.experiment.model_dump(mode="json"),
            "provenance": bundle.provenance,
        }
    )


def _write_onnx(
    network: ExportedNetwork, arrays: dict[str, np.ndarray], path: Path, about: str
) -> None:
    import onnx

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network,
        _example(arrays),
        path,
        input_names=list(arrays),
        output_names=["months"],
        # One tuple: the network takes its inputs as one list of arguments.
        dynamic_shapes=(tuple({0: batch} for _ in arrays),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"boneage": about})
    onnx.save(model, path)


def _run_onnx(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (months,) = session.run(["months"], arrays)
    return np.asarray(months)


def _write_openvino(
    network: ExportedNetwork, arrays: dict[str, np.ndarray], path: Path, about: str
) -> None:
    import openvino

    model = openvino.convert_model(network, example_input=_example(arrays))
    for port, (name, array) in zip(model.inputs, arrays.items(), strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([-1, *array.shape[1:]]))
        port.get_node().set_element_type(openvino.Type(array.dtype))
    model.outputs[0].get_tensor().set_names({"months"})
    model.validate_nodes_and_infer_types()
    model.set_rt_info(about, ["boneage"])
    openvino.save_model(model, path, compress_to_fp16=False)


def _run_openvino(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import openvino

    # The default of CPUs with bf16 is bf16, which is another question than the export.
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", precise)
    return np.asarray(model(arrays)["months"])


def _example(arrays: dict[str, np.ndarray]) -> tuple[Tensor, ...]:
    # One image alone would fix the batch at 1.
    return tuple(torch.from_numpy(array[:2]) for array in arrays.values())


@contextmanager
def _quiet() -> Iterator[None]:
    # Exporters warn of their own parts, and of checks that they evaluate once.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
