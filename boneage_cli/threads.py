"""Threads that work on one radiograph each."""

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
    """How many threads may compute at a time.

    The cores, or fewer if ``OMP_NUM_THREADS`` says, or the container's share of the machine.
    """
    # Only Linux knows which cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    limits = [cores or 1, int(asked) if asked.isdecimal() else None, container_cores()]
    return max(1, min(limit for limit in limits if limit is not None))


def container_cores(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How many cores' time a container may spend, as ``docker run --cpus`` sets it, rounded up.

    Args:
        folder: The control groups, of version 2 or 1.

    Returns:
        None where there is no limit.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            # "max" or -1 is no limit.
            text = " ".join((folder / name).read_text(encoding="utf-8") for name in names)
            time, period = map(int, text.split())
            return max(1, math.ceil(time / period)) if time > 0 else None
    return None


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


def in_turn(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Results of work that a pool does ahead, in order, drawing no more items than that takes.

    Args:
        submit: Hands an item to the pool.
        items: What is to be done; drawn from lazily.
        ahead: How many items are worked on, or done and waiting.
    """
    source = iter(items)
    waiting: deque[Future[Result]] = deque()
    while True:
        waiting.extend(map(submit, islice(source, ahead - len(waiting))))
        if not waiting:
            return
        yield waiting.popleft().result()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """So many items at a time, the last time perhaps fewer."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def as_they_come(source: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Batches of what a source has given so far, so that what is there waits for nothing more.

    A thread of its own draws from the source, no more than a batch ahead.

    Args:
        source: Gives an item now and then. What it raises is raised after what came before it.
        most: Items of a batch at most.
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

    # One that waits for a pipe when the program ends must not keep it from ending.
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
    """Counts the pools there are: both settings are those of the process."""
    global _pools, _before
    with _lock:
        if not _pools:
            _before = cv2.getNumThreads(), sys.getswitchinterval()
        _pools += change
        threads, interval = (1, _SWITCH_INTERVAL) if _pools else _before
        cv2.setNumThreads(threads)
        sys.setswitchinterval(interval)
