"""Tests of threads: how many run at a time, and the order of their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Queue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.threads import (
    as_they_come,
    batched,
    container_cores,
    in_turn,
    usable_threads,
    worker_threads,
)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_s_share_of_the_machine_is_seen(
    files: Mapping[str, str], cores: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_cores(tmp_path) == cores


@pytest.mark.parametrize(("asked", "most"), [("1", 1), ("0", 1), ("many", 1024)])
def test_fewer_threads_are_used_where_that_is_asked_for(
    asked: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= usable_threads() <= most


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 5))
def test_batches_are_the_items_in_order(items: list[int], size: int) -> None:
    batches = list(batched(iter(items), size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(batches)


def test_work_ahead_is_bounded_and_comes_in_order() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    with worker_threads(3) as pool:
        results = in_turn(lambda item: pool.submit(lambda: -item), items(), 5)
        for number, result in enumerate(results):
            assert result == -number
            assert len(drawn) <= number + 5
    assert len(drawn) == 100


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
