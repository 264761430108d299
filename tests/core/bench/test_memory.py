"""Tests of the reported peak memory."""

from __future__ import annotations

from boneage_cli.core.bench.memory import peak_memory


def test_peak_memory_is_in_megabytes_and_never_falls() -> None:
    before = peak_memory()
    taken = bytearray(80_000_000)
    taken[::4096] = b"1" * len(taken[::4096])
    assert 50 < before <= peak_memory() < 1e6
