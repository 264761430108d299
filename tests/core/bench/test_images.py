"""Tests of the radiographs used in benchmarks."""

from __future__ import annotations

from pathlib import Path

from boneage_cli.core.bench.images import draw_radiographs
from boneage_cli.imaging.reading import read_radiograph


def test_drawn_radiographs_have_a_radiograph_s_size_and_are_the_same_each_time(
    tmp_path: Path,
) -> None:
    first, again = (draw_radiographs(tmp_path / name, True) for name in ("a", "b"))
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in again]
    assert {read_radiograph(path).pixels.shape for path in first} == {(1920, 1536)}
