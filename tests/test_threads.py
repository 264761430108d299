"""Tests of pools of threads: the order of their results, and how far they work ahead."""

from __future__ import annotations

from collections.abc import Iterator

from boneage_cli.threads import in_turn, worker_threads


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
