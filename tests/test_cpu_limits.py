"""Tests of how many threads compute at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from boneage_cli.cpu_limits import container_cores, usable_threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_s_share_of_the_machine_is_seen(
    files: Mapping[str, str], cores: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_cores(tmp_path) == cores


@pytest.mark.parametrize(("asked", "most"), [("1", 1), ("0", 1), ("many", 1024)])
def test_fewer_threads_are_used_where_that_is_asked_for(
    asked: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert 1 <= usable_threads() <= most
