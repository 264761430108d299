"""Pools of worker processes, for work in which threads would wait for the interpreter lock.

From a seventh (prediction) to a half (hand outlines) of the time for a radiograph is spent in
Python's interpreter, which only one thread can use at a time: beyond a few cores, threads add
nothing.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from multiprocessing import get_context, parent_process
from threading import Thread
from types import FrameType
from typing import Any

from boneage_cli.errors import BoneageError
from boneage_cli.interrupts import SIGNALS, interrupts_wait

ENOUGH_FOR_PROCESSES = 512
"""Number of radiographs from which starting processes pays off."""

# More processes would read faster than disks can, and each needs memory of its own.
_MOST = 16

_make: Callable[[], Callable[[Any], Any]] | None = None
_work: Callable[[Any], Any] | None = None
# Exit status once SIGTERM has come to a worker process.
_ended = 0


def processes_for(workers: int) -> int:
    """Returns the number of processes to use for ``workers``; 0 means to use threads instead."""
    # Windows starts and ends processes in another way.
    return min(workers, _MOST) if workers > 1 and hasattr(signal, "pthread_sigmask") else 0


@contextmanager
def worker_processes(
    count: int, make: Callable[[], Callable[[Any], Any]]
) -> Iterator[Callable[[Any], Future[Any]]]:
    """A pool of worker processes with one core each; pending work is cancelled at the end.

    Yields a function that submits one item to the pool. The processes are spawned, not forked, so
    a program that uses this has to guard its main module (``if __name__ == "__main__"``), as
    multiprocessing requires.

    Args:
        count: Number of processes, as from ``processes_for``.
        make: Called once in each process; returns the function that processes one item. ``make``,
            items and results must be picklable.

    Raises:
        BoneageError: A process was killed from outside, for example because memory ran out.
    """
    executor = ProcessPoolExecutor(count, get_context("spawn"), _begin, (make,))
    try:
        with _starting():
            for _ in range(count):
                executor.submit(os.getpid)
        yield lambda item: executor.submit(_do, item)
    except BrokenProcessPool:
        raise BoneageError(
            "one of the processes at work was ended from outside, perhaps because memory ran out; "
            "--workers 1 starts none"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _starting() -> Iterator[None]:
    """Starts processes with one thread each and with signals blocked.

    A process interrupted before ``_begin`` has set its handlers would print a traceback.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    with interrupts_wait():
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            if threads is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = threads


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    """Initialises a worker process: stores ``make`` and sets its signal handlers."""
    global _make
    _make = make
    # Ctrl-C reaches all processes of a terminal; the parent process ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    Thread(target=_end_with_parent, daemon=True).start()


def _end(number: int, frame: FrameType | None) -> None:
    global _ended
    _ended = 128 + number
    raise SystemExit(_ended)


def _end_with_parent() -> None:
    """Ends this process if its parent is killed; otherwise it would wait forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(item: Any) -> Any:
    global _work
    # The exception is lost if the signal comes while a library frees an object.
    if _ended:
        os._exit(_ended)
    try:
        if _work is None:
            import cv2

            assert _make is not None
            cv2.setNumThreads(1)
            # Warnings and progress were already shown by the parent process.
            with redirect_stderr(io.StringIO()):
                _work = _make()
        return _work(item)
    except SystemExit as ended:
        # The pool would treat SystemExit as a result. Half-written files are removed by now.
        os._exit(int(str(ended.code)))
