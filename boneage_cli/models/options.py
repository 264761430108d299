"""Options of a network that may differ between its views or its dense layers.

Imports no torch, because settings are validated with this module and importing it takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from boneage_cli.models.families import VIEWS
from boneage_cli.models.names import unknown_name

T = TypeVar("T")


def of_view(option: T | Mapping[str, T], view: str, views: Sequence[str], name: str) -> T:
    """Returns the value of an option for one view.

    Args:
        option: One value for all views, or a mapping from view to value.
        view: The view.
        views: All views of the network.
        name: The option's name, for messages.

    Raises:
        ValueError: The mapping has no value for the view, or has an unknown view.
    """
    if not isinstance(option, Mapping):
        return option
    for known in option:
        if known not in VIEWS and known not in views:
            raise unknown_name(f"view in {name}", known, VIEWS)
    if view not in option:
        raise ValueError(f"{name} has a value for {', '.join(option)} but none for {view}")
    return option[view]


def activations_of(layers: Sequence[int], activation: str | Sequence[str]) -> list[str]:
    """Returns the activation of each dense layer.

    Args:
        layers: Widths of the layers.
        activation: One name for all layers, or one per layer.

    Raises:
        ValueError: There are more or fewer names than layers.
    """
    names = [activation] * len(layers) if isinstance(activation, str) else list(activation)
    if len(names) != len(layers):
        raise ValueError(
            f"{len(names)} activations {tuple(names)} for {len(layers)} dense layers "
            f"{tuple(layers)}; give one for all, or one per layer"
        )
    return names


def dropout_rates(layers: Sequence[int], dropout: float | Sequence[float]) -> list[float]:
    """Returns the dropout before each dense layer, and that of the last one's output.

    Args:
        layers: Widths of the layers; may be empty.
        dropout: One probability for every layer (for the output if there are no layers), or one per
            layer, optionally with one more for the output.

    Raises:
        ValueError: A probability or their number is invalid.
    """
    if isinstance(dropout, (int, float)):
        rates = [float(dropout)] * len(layers) + [0.0] if layers else [float(dropout)]
    else:
        rates = [float(rate) for rate in dropout]
        if len(rates) not in (len(layers), len(layers) + 1):
            raise ValueError(
                f"{len(rates)} dropout rates {tuple(rates)} for {len(layers)} dense layers; "
                "give one for all, one per layer, or one more for what the last layer gives"
            )
        rates += [0.0] * (len(layers) + 1 - len(rates))
    if any(not 0 <= rate < 1 for rate in rates):
        raise ValueError(f"dropout must be at least 0 and less than 1, not {dropout}")
    return rates
