"""Threads that work on one radiograph each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import cv2


def usable_threads() -> int:
    """How many threads may compute at a time: the cores, or fewer if ``OMP_NUM_THREADS`` says."""
    # Only Linux knows which cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores or 1, int(asked) if asked.isdecimal() else cores or 1))


# A thread that comes back from OpenCV, numpy or a network waits at most so long for its turn,
# seconds. With Python's own 5 ms two threads that cut out regions took 2 to 10 % longer.
_SWITCH_INTERVAL = 1e-4

_lock = Lock()
_pools = 0
_before = (0, 0.0)


@contextmanager
def worker_threads(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, whose waiting work is dropped at the end, however it ends.

    Meanwhile OpenCV stays in the thread that calls it. Its own threads, started again in each of
    several, cost more than they help. And threads hand the interpreter on more often.

    Args:
        workers: How many; None for one per usable core.
    """
    _count_pools(+1)
    executor = ThreadPoolExecutor(workers or usable_threads(), thread_name_prefix="worker")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        _count_pools(-1)


def _count_pools(change: int) -> None:
    """Counts the pools there are: both settings are those of the process."""
    global _pools, _before
    with _lock:
        if not _pools:
            _before = cv2.getNumThreads(), sys.getswitchinterval()
        _pools += change
        threads, interval = (1, _SWITCH_INTERVAL) if _pools else _before
        cv2.setNumThreads(threads)
        sys.setswitchinterval(interval)
