"""Delays the signals that end a command while code runs that must not be interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the end of the block.

    An interrupt during the import of a compiled library would be reported as a failed import.
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
