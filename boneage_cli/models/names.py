"""The names of a network's parts, and the error for unknown ones.

Imports no torch, because settings are validated with these names and importing it takes seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

Normalisation = Literal["auto", "zscore", "half", "imagenet", "unit"]
Pooling = Literal["avg", "gem", "attention", "attention_deep", "flatten"]
Activation = Literal["relu", "tanh", "swish", "mish", "elu", "gelu"]
Fusion = Literal["none", "embedding", "mlp", "cross_attention", "gated", "cross_attention_gated"]
AgeHead = Literal["linear", "sigmoid", "distribution"]
Target = Literal["age", "sex"]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Makes the error for an unknown name; its message suggests the nearest known names.

    Args:
        kind: The kind of part, such as "pooling".
        name: The name that was given.
        known: The names that exist.

    Returns:
        An error whose message is one line; the caller raises it.
    """
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return ValueError(f"unknown {kind} {name!r}; did you mean {' or '.join(near)}?")
    if len(names) <= 20:
        return ValueError(f"unknown {kind} {name!r}; known are {', '.join(names)}")
    return ValueError(f"unknown {kind} {name!r}, and nothing known has a similar name")
