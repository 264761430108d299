"""Mixed precision: splits a converted network into three parts, the second of which runs in bf16.

bf16 loses accuracy mainly in the first layers, whose feature maps are large, and in the last one,
whose output is the age. With these in full precision, which are a third of the work, the mean
change of EfficientNet-Lite0's ages falls from 0.28 to 0.04 months.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIXED_PRECISION = "mixed_precision"
"""Key of the change of ages in a bundle's metrics; present only if that change is small."""

_PARTS = 3
# Index of the part that may run in bf16.
COARSE = 1


@dataclass(frozen=True)
class Part:
    """A part of an ``openvino.Model``.

    Attributes:
        model: The part as an ``openvino.Model``.
        takes: Origin of each input, in order: a part's index and its output's number, or -1 and
            the number of an input of the whole network.
    """

    model: Any
    takes: list[tuple[int, int]]


def parts(model: Any) -> list[Part]:
    """Splits a model where its feature maps become an eighth of the view, and at the pooling.

    Args:
        model: An ``openvino.Model`` of fixed height and width; it is unusable afterwards.

    Returns:
        The first layers, the middle layers, and the layers after pooling; empty if the model
        cannot be split in this way.
    """
    import openvino
    from openvino.passes import ConstantFolding, Manager

    # Computations of shapes, such as for padding, would connect the parts.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    inputs = {each.get_name(): number for number, each in enumerate(model.get_parameters())}
    places = _places(model)
    ends = [result.input_value(0) for result in model.get_results()]
    if set(places.values()) != set(range(_PARTS)) or any(
        places.get(end.get_node().get_name()) != _PARTS - 1 for end in ends
    ):
        return []
    drafts = [_Draft() for _ in range(_PARTS)]
    for operation in model.get_ordered_ops():
        place = places.get(operation.get_name())
        if place is None:
            continue
        for port in operation.inputs():
            source = port.get_source_output()
            name = source.get_node().get_name()
            if name in inputs:
                drafts[place].take(port, -1, inputs[name])
            elif (before := places.get(name, place)) != place:
                drafts[place].take(port, before, drafts[before].give(source))
    drafts[-1].given = ends
    return [
        Part(openvino.Model(draft.given, list(draft.parameters.values())), list(draft.parameters))
        for draft in drafts
    ]


@dataclass
class _Draft:
    """A part under construction: its inputs, by origin, and its outputs."""

    parameters: dict[tuple[int, int], Any] = field(default_factory=dict)
    given: list[Any] = field(default_factory=list)

    def take(self, port: Any, part: int, number: int) -> None:
        """Connects an operation's input to another part's output, or with -1 to a network input."""
        from openvino import opset13

        source = port.get_source_output()
        parameter = self.parameters.setdefault(
            (part, number),
            opset13.parameter(source.get_partial_shape(), source.get_element_type()),
        )
        port.replace_source_output(parameter.output(0))

    def give(self, source: Any) -> int:
        """Adds an operation's output to the part's outputs, if needed, and returns its number."""
        names = [(each.get_node().get_name(), each.get_index()) for each in self.given]
        name = (source.get_node().get_name(), source.get_index())
        if name not in names:
            self.given.append(source)
        return [*names, name].index(name)


def _places(model: Any) -> dict[str, int]:
    """Returns each operation's part by operation name, without inputs, constants and results."""
    operations = {
        each.get_name(): each
        for each in model.get_ordered_ops()
        if each.get_type_name() not in ("Parameter", "Result")
    }
    least = max(_area(each.output(0)) for each in model.get_parameters()) / 64
    sources: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    for name, operation in operations.items():
        found = [port.get_source_output().get_node() for port in operation.inputs()]
        # Operations on constants alone belong to the part that uses them.
        sources[name] = [
            each.get_name()
            for each in found
            if each.get_name() in places or each.get_type_name() == "Parameter"
        ]
        if not sources[name]:
            continue
        place = max(places.get(source, 0) for source in sources[name])
        if operation.get_type_name().endswith("Convolution"):
            # Padding may make feature maps a row or column larger.
            place = max(place, COARSE if _area(operation.output(0)) <= 1.2 * least else 0)
        places[name] = place
    convolves: set[str] = set()
    users: dict[str, set[str]] = {name: set() for name in places}
    for name in reversed(places):
        for source in sources[name]:
            users.setdefault(source, set()).add(name)
        if operations[name].get_type_name().endswith("Convolution") or users[name] & convolves:
            convolves.add(name)
    for name in places:
        after = any(places.get(source) == COARSE + 1 for source in sources[name])
        pooled = after or _area(operations[name].output(0)) <= 1
        if places[name] == COARSE and name not in convolves and pooled:
            places[name] = COARSE + 1
    for name in reversed(places):
        # A layer that enlarges the feature maps just before the split, such as the first layer of
        # a block, moves behind it, so that the smaller maps are passed on.
        of_maps = [source for source in sources[name] if _elements(operations.get(source))]
        if (
            places[name] == 0
            and users[name]
            and all(places[user] == COARSE for user in users[name])
            and len(sources[name]) == len(of_maps) == 1
            and _elements(operations[name]) >= _elements(operations[of_maps[0]])
        ):
            places[name] = COARSE
    return places


class PartsRequest:
    """Runs the parts in sequence; has the interface of one inference request.

    Args:
        requests: An ``openvino.InferRequest`` for each compiled part.
        takes: Origins of each part's inputs, see ``Part``.
    """

    def __init__(self, requests: Sequence[Any], takes: Sequence[Sequence[tuple[int, int]]]) -> None:
        self.requests, self.takes = requests, takes
        for request, sources in zip(self.requests, takes, strict=True):
            for place, (part, number) in enumerate(sources):
                if part >= 0:
                    # The parts share the tensor, so nothing is copied between them.
                    request.set_input_tensor(place, self.requests[part].get_output_tensor(number))

    def infer(self, inputs: Sequence[np.ndarray]) -> None:
        """Runs the network; ``get_output_tensor`` returns the outputs."""
        for request, sources in zip(self.requests, self.takes, strict=True):
            for place, (part, number) in enumerate(sources):
                if part < 0:
                    # Copies into the same tensor: setting a new one costs time at every inference.
                    request.get_input_tensor(place).data[:] = inputs[number]
            request.infer()

    def get_output_tensor(self, number: int) -> Any:
        """Returns an output of the network, which the next inference overwrites."""
        return self.requests[-1].get_output_tensor(number)


def _elements(operation: Any) -> int:
    """Number of values in an operation's feature maps per image; 0 for other outputs."""
    if operation is None:
        return 0
    channels = operation.output(0).get_partial_shape()[1] if _area(operation.output(0)) else None
    return 0 if channels is None else int(channels.get_length() * _area(operation.output(0)))


def _area(port: Any) -> int:
    """Height times width of feature maps; 0 for other tensors."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 4 or shape[2].is_dynamic or shape[3].is_dynamic:
        return 0
    return int(shape[2].get_length() * shape[3].get_length())
