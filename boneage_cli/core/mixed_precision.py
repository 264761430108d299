"""A converted network in three parts, of which the second may run in bf16.

What bf16 takes from an age it takes at the two ends: in the first layers, whose maps are large, and
in the last, whose number is the age. Of the 0.28 months that EfficientNet-Lite0 loses on average,
0.04 are left when these run in full precision, and they are a third of the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIXED_PRECISION = "mixed_precision"
"""The name, in a bundle's metrics, of how far its ages move; only of a model whose move little."""

_PARTS = 3
# The part that may run in bf16.
COARSE = 1


@dataclass(frozen=True)
class Part:
    """A part of an ``openvino.Model``.

    Attributes:
        model: What runs it, an ``openvino.Model``.
        takes: Where its inputs come from, in order: part and number of its output, or -1 and the
            number of the whole's input.
    """

    model: Any
    takes: list[tuple[int, int]]


def parts(model: Any) -> list[Part]:
    """Parts a model before its maps become an eighth of the view, and where they are pooled.

    Args:
        model: An ``openvino.Model`` of fixed height and width; it is taken apart, and of no use
            afterwards.

    Returns:
        First layers, the others, and what follows pooling; empty where there are no such three.
    """
    import openvino
    from openvino.passes import ConstantFolding, Manager

    # Arithmetic of shapes, such as that of padding, would tie the parts together.
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
    """What a part takes, by where it comes from, and what it gives."""

    parameters: dict[tuple[int, int], Any] = field(default_factory=dict)
    given: list[Any] = field(default_factory=list)

    def take(self, port: Any, part: int, number: int) -> None:
        """Has an operation's input come from another part, or with -1 from outside."""
        from openvino import opset13

        source = port.get_source_output()
        parameter = self.parameters.setdefault(
            (part, number),
            opset13.parameter(source.get_partial_shape(), source.get_element_type()),
        )
        port.replace_source_output(parameter.output(0))

    def give(self, source: Any) -> int:
        """The number of an operation's output among those that the part gives."""
        names = [(each.get_node().get_name(), each.get_index()) for each in self.given]
        name = (source.get_node().get_name(), source.get_index())
        if name not in names:
            self.given.append(source)
        return [*names, name].index(name)


def _places(model: Any) -> dict[str, int]:
    """Which part each operation belongs to, by its name, but for inputs, constants and results."""
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
        # What is made of constants alone goes where it is used.
        sources[name] = [
            each.get_name()
            for each in found
            if each.get_name() in places or each.get_type_name() == "Parameter"
        ]
        if not sources[name]:
            continue
        place = max((places.get(source, 0) for source in sources[name]), default=0)
        if operation.get_type_name().endswith("Convolution"):
            # Pads may leave maps a row or column larger.
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
        # What makes more of maps before they are handed over, such as the first layer of a block,
        # is handed over with them.
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
    """Runs the parts one after the other, as one inference request does.

    Args:
        requests: An ``openvino.InferRequest`` of each part, compiled.
        takes: Of each, see ``Part``.
    """

    def __init__(self, requests: Sequence[Any], takes: Sequence[Sequence[tuple[int, int]]]) -> None:
        self.requests, self.takes = requests, takes
        for request, sources in zip(self.requests, takes, strict=True):
            for place, (part, number) in enumerate(sources):
                if part >= 0:
                    # What one writes the other reads.
                    request.set_input_tensor(place, self.requests[part].get_output_tensor(number))

    def infer(self, inputs: Sequence[np.ndarray]) -> None:
        """Runs the network; its outputs are those of ``get_output_tensor``."""
        for request, sources in zip(self.requests, self.takes, strict=True):
            for place, (part, number) in enumerate(sources):
                if part < 0:
                    # Another tensor each time would be set up each time.
                    request.get_input_tensor(place).data[:] = inputs[number]
            request.infer()

    def get_output_tensor(self, number: int) -> Any:
        """An output of the network, which the next inference overwrites."""
        return self.requests[-1].get_output_tensor(number)


def _elements(operation: Any) -> int:
    """How many numbers the maps of an image have that an operation gives; 0 of all else."""
    if operation is None:
        return 0
    channels = operation.output(0).get_partial_shape()[1] if _area(operation.output(0)) else None
    return 0 if channels is None else int(channels.get_length() * _area(operation.output(0)))


def _area(port: Any) -> int:
    """Rows times columns of maps; 0 of all else."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 4 or shape[2].is_dynamic or shape[3].is_dynamic:
        return 0
    return int(shape[2].get_length() * shape[3].get_length())
