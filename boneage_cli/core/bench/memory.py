"""Peak memory of this process and its children."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path


def peak_memory() -> float:
    """Peak memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_memory_of_children() -> float:
    """Summed peak memory of the running child processes, MB (Linux only, else 0)."""
    peak = 0.0
    for child in active_children():
        # Not getrusage: its value for children includes memory of this process before the fork.
        with suppress(OSError):
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peak += int(found[1]) * 1024 / 1e6 if found else 0.0
    return peak
