"""Tests of the reported peak memory."""

from __future__ import annotations

import subprocess
import sys

# Prints the peak before 300 MB are taken, while they are, and after they were freed.
PEAKS = """
from boneage_cli.core.bench.memory import peak_memory
print(peak_memory())
taken = bytearray(b"1") * 300_000_000
print(peak_memory())
del taken
print(peak_memory())
"""


def test_peak_memory_is_in_megabytes_and_never_falls() -> None:
    # A new process, since the one of the tests may have had more.
    told = subprocess.run([sys.executable, "-c", PEAKS], check=True, capture_output=True, text=True)
    before, at_most, after = map(float, told.stdout.split())
    assert 300 < at_most < before + 330
    assert after == at_most
