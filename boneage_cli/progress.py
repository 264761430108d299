"""Progress bars with rate and time left, on standard error; hidden if that is not a terminal."""

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
        iterable: The items to iterate over; leave empty to call ``update`` by hand.
        description: Label of the bar, a short verb phrase.
        total: The number of units, if the iterable has no length.
        unit: The name of one unit.
        options: Passed on to tqdm, for example ``unit_scale`` for bytes.

    Returns:
        The bar: an iterator, and a context manager with ``update(n)``. It is hidden if standard
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
