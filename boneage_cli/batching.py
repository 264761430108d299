"""Batches of items, of a fixed size or as many as are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from queue import Full, Queue
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields lists of ``size`` items; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def as_they_come(source: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Yields batches of the items that are available, without waiting for a batch to fill.

    A separate thread reads from the source, at most one batch ahead.

    Args:
        source: Slow source of items. Its exception is raised after the items that preceded it.
        most: Maximum batch size.
    """
    came: Queue[tuple[bool, Any]] = Queue(most)
    wanted = True

    def put(found: bool, what: Any) -> None:
        while wanted:
            with suppress(Full):
                came.put((found, what), timeout=1)
                return

    def draw() -> None:
        try:
            for item in source:
                put(True, item)
                if not wanted:
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    # A daemon, because a thread that waits for a pipe must not keep the program from ending.
    Thread(target=draw, daemon=True).start()
    try:
        found = True
        while found:
            batch: list[Item] = []
            while found and len(batch) < most and not (batch and came.empty()):
                found, what = came.get()
                if found:
                    batch.append(what)
            if batch:
                yield batch
        if what is not None:
            raise what
    finally:
        wanted = False
