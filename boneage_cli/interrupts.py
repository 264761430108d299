"""Signals that end a command, where they must not come in between."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM wait until the block is through.

    Imports of compiled libraries take an exception in their midst for a failure of their own.
    """
    came: list[int] = []
    ours = current_thread() is main_thread()
    before = {
        each: signal.signal(each, lambda number, _: came.append(number)) for each in SIGNALS if ours
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    for number in came:
        signal.raise_signal(number)
