"""Processes that work side by side, where threads would wait for each other's interpreter.

Of the work on one radiograph, a seventh (predicting) to a half (outlines of hands) runs in Python's
interpreter, which one thread at a time may use: beyond a few cores, more threads do nothing.
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

ENOUGH = 512
"""Fewer radiographs are done before other processes have begun."""

# More processes read faster than disks do, and each takes its memory.
_MOST = 16

_make: Callable[[], Callable[[Any], Any]] | None = None
_work: Callable[[Any], Any] | None = None


def processes_for(workers: int) -> int:
    """How many processes do the work of so many workers; 0 where threads are as good."""
    # Windows starts and ends processes otherwise.
    return min(workers, _MOST) if workers > 1 and hasattr(signal, "pthread_sigmask") else 0


@contextmanager
def worker_processes(
    count: int, make: Callable[[], Callable[[Any], Any]]
) -> Iterator[Callable[[Any], Future[Any]]]:
    """A pool of processes with one core each, whose waiting work is dropped at the end.

    Gives what hands an item to them. They are started anew and not forked, so a program that uses
    this has to guard its main module (``if __name__ == "__main__"``), as multiprocessing asks for.

    Args:
        count: How many, as ``processes_for`` gives it.
        make: Makes, in each process, what works there: a function of one item. Both, items and
            results have to be such as pickle takes.

    Raises:
        BoneageError: A process was ended from outside, by a system without memory say.
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
    """What goes for processes that are started meanwhile: one core each, and signals wait.

    One that is interrupted before it can see to that complains at length.
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
    """The first that each process does."""
    global _make
    _make = make
    # A terminal interrupts all its processes; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    Thread(target=_end_with_parent, daemon=True).start()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """Ends this process when the one that started it was killed: it would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(item: Any) -> Any:
    global _work
    try:
        if _work is None:
            import cv2

            assert _make is not None
            cv2.setNumThreads(1)
            # What there is to warn of, and to wait for, the process that started this one told.
            with redirect_stderr(io.StringIO()):
                _work = _make()
        return _work(item)
    except SystemExit as ended:
        # The pool would take it for a result. What was half-written is gone by now.
        os._exit(int(str(ended.code)))
