"""Progress bars with rate and time left, on standard error, silent where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(
    iterable: Iterable[T] = (),
    *,
    description: str,
    total: float | None = None,
    unit: str = "image",
    **options: Any,
) -> tqdm[T]:
    """Wraps an iterable (or counts updates) in a progress bar.

    Args:
        iterable: What is iterated over; nothing, to call ``update`` by hand.
        description: What is being done, as a short verb phrase.
        total: The number of units, where the iterable has no length.
        unit: The name of one unit.
        options: Passed on to tqdm (``unit_scale`` for bytes, say).

    Returns:
        The bar: an iterator, and a context manager with ``update(n)``. It is hidden when standard
        error is not a terminal.
    """
    return tqdm(
        iterable,
        desc=description,
        total=total,
        unit=unit,
        disable=None,
        dynamic_ncols=True,
        leave=False,
        **options,
    )
