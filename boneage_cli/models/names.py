"""Choosing a part by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that nothing bears, with the nearest names that something does.

    Args:
        kind: What was to be chosen, such as "pooling".
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
