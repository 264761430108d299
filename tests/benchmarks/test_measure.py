"""Tests that the benchmarks run; their results are in docs/performance.md."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "part", ["help", "shell", "predict", "backends", "memory", "workers", "cache"]
)
def test_every_part_gives_figures(
    part: str, demo_data: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("measure", Path(__file__).with_name("measure.py"))
    assert spec is not None
    assert spec.loader is not None
    measure = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = measure
    spec.loader.exec_module(measure)
    output = tmp_path / "performance.json"
    chosen = ["--images", str(demo_data / "test"), "--data", str(demo_data), "--only", part]
    found = measure.main([*chosen, "--model", str(demo_bundle), "--quick", "--output", str(output)])
    assert found[part]
    assert all(math.isfinite(figure.value) and figure.value >= 0 for figure in found[part])
    written = json.loads(output.read_text(encoding="utf-8"))["parts"][part]
    assert [row["what"] for row in written] == [figure.what for figure in found[part]]
