"""How many threads can compute at the same time."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path


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
