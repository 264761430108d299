"""The error for unknown names of parts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
