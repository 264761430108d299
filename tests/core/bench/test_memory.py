"""Promises about the memory that is told of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from boneage_cli.core.bench.memory import peak_memory


def test_peak_memory_is_in_megabytes_and_never_falls() -> None:
    before = peak_memory()
    taken = bytearray(80_000_000)
    taken[::4096] = b"1" * len(taken[::4096])
    assert 50 < before <= peak_memory() < 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell it in another way")
def test_peak_memory_is_what_the_system_tells_of_this_process() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    assert peak_memory() == pytest.approx(kilobytes * 1024 / 1e6, rel=0.05)
