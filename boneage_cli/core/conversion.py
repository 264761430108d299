"""A network as arrays in and arrays out, and its conversion for OpenVINO and ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Graph:
    """A network to run; the module is built only if no converted network is cached.

    Attributes:
        make: Builds the module in evaluation mode; it takes the inputs in order.
        inputs: Shape of one image, () for a number, and data type of each input.
        outputs: Names of the outputs.
        key: Cache key that identifies the network and its weights; None if it must not be cached.
    """

    make: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
    outputs: tuple[str, ...]
    key: str | None = None

    def example(self) -> dict[str, np.ndarray]:
        """Zero-filled inputs of batch size 2; tracing with size 1 would fix the batch dimension."""
        inputs = self.inputs.items()
        return {name: np.zeros((2, *shape), kind) for name, (shape, kind) in inputs}


def convert_to_openvino(graph: Graph, batch: int = -1) -> Any:
    """Converts a graph to an ``openvino.Model`` with named inputs and outputs.

    Args:
        graph: The graph.
        batch: Batch size; -1 for a dynamic batch dimension.
    """
    import openvino
    import torch

    example = tuple(torch.from_numpy(array) for array in graph.example().values())
    with warnings.catch_warnings():
        # Tracing warns about every Python condition, because it is evaluated only once.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(graph.make(), example_input=example)
    for port, (name, (shape, kind)) in zip(model.inputs, graph.inputs.items(), strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([batch, *shape]))
        port.get_node().set_element_type(openvino.Type(np.dtype(kind)))
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def write_onnx(graph: Graph, path: Path) -> None:
    """Writes the graph as an ONNX file with a dynamic batch dimension."""
    import torch

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.make(),
            tuple(torch.from_numpy(array) for array in graph.example().values()),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # A nested tuple, because the module takes its inputs as ``*inputs``.
            dynamic_shapes=(tuple({0: batch} for _ in graph.inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
