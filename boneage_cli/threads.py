"""Thread pools in which each thread processes one radiograph at a time, and batching."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_threads() -> int:
    """Returns the number of threads that can compute at the same time.

    The smallest of the usable cores, ``OMP_NUM_THREADS`` and the container's CPU limit.
    """
    # Only Linux reports which cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    limits = [cores or 1, int(asked) if asked.isdecimal() else None, container_cores()]
    return max(1, min(limit for limit in limits if limit is not None))


def container_cores(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns the container's CPU limit in cores (``docker run --cpus``), rounded up.

    Args:
        folder: Mount point of the control groups, version 2 or 1.

    Returns:
        The number of cores; None if there is no limit.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            # "max" or -1 means no limit.
            text = " ".join((folder / name).read_text(encoding="utf-8") for name in names)
            time, period = map(int, text.split())
            return max(1, math.ceil(time / period)) if time > 0 else None
    return None


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
