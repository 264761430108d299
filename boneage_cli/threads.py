"""Thread pools in which each thread processes one radiograph at a time."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import TypeVar

import cv2

from boneage_cli.cpu_limits import usable_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

# The longest that a thread returning from OpenCV, numpy or a network waits for the interpreter
# lock, seconds. With Python's default of 5 ms, two threads that crop regions took 2 to 10 % longer.
_SWITCH_INTERVAL = 1e-4

_lock = Lock()
_pools = 0
_before = (0, 0.0)


@contextmanager
def worker_threads(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; pending work is cancelled when the block ends, even by an exception.

    While a pool exists, OpenCV runs single-threaded, because its own threads, started in each
    worker, cost more than they help; and threads switch more often.

    Args:
        workers: Number of threads; None for one per usable core.
    """
    _count_pools(+1)
    executor = ThreadPoolExecutor(workers or usable_threads(), thread_name_prefix="worker")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        _count_pools(-1)


def in_turn(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yields the results of a pool in the order of the items, working a limited number ahead.

    Args:
        submit: Submits an item to the pool.
        items: The items to process; consumed lazily.
        ahead: Maximum number of items that are in progress or finished but not yet yielded.
    """
    source = iter(items)
    waiting: deque[Future[Result]] = deque()
    while True:
        waiting.extend(map(submit, islice(source, ahead - len(waiting))))
        if not waiting:
            return
        yield waiting.popleft().result()


def _count_pools(change: int) -> None:
    """Counts the open pools, because both settings are global to the process."""
    global _pools, _before
    with _lock:
        if not _pools:
            _before = cv2.getNumThreads(), sys.getswitchinterval()
        _pools += change
        threads, interval = (1, _SWITCH_INTERVAL) if _pools else _before
        cv2.setNumThreads(threads)
        sys.setswitchinterval(interval)
