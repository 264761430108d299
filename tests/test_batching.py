"""Tests of batches."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.batching import as_they_come, batched


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 5))
def test_batches_are_the_items_in_order(items: list[int], size: int) -> None:
    batches = list(batched(iter(items), size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batches)


def test_what_has_come_waits_for_nothing_more() -> None:
    more: Queue[int | None] = Queue()
    more.put(0)
    batches = as_they_come(iter(more.get, None), 4)
    for number in range(3):
        # The source blocks until this batch has been yielded.
        assert next(batches) == [number]
        more.put(number + 1)
    more.put(None)
    assert [item for batch in batches for item in batch] == [3]


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 5))
def test_all_that_comes_is_there_once_and_in_order(items: list[int], most: int) -> None:
    batches = list(as_they_come(iter(items), most))
    assert [item for batch in batches for item in batch] == items
    assert all(1 <= len(batch) <= most for batch in batches)


def test_an_error_of_the_source_comes_after_what_came_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    batches = as_they_come(source(), 4)
    assert next(batches) == [1]
    with pytest.raises(ValueError, match="no more"):
        next(batches)
