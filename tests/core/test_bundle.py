"""Promises about several models that become one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from boneage_cli.core.bundle import averaged, load_bundle
from boneage_cli.core.intervals import LEVELS, Calibration
from boneage_cli.core.runs import SHIPPED_MODEL
from boneage_cli.errors import BoneageError


def test_a_mean_has_the_intervals_of_its_models_only_where_all_have_the_same(
    demo_bundle: Path,
) -> None:
    def with_widths(half: float | None) -> Calibration | None:
        if half is None:
            return None
        return Calibration({"all": (half,) * len(LEVELS)}, {"all": 500}, "made")

    bundle = load_bundle(demo_bundle)
    for halves, kept in (((10, 10), 10), ((10, 12), None), ((10, None), None), ((None, 10), None)):
        models = [replace(bundle, calibration=with_widths(half)) for half in halves]
        assert averaged(models).calibration == with_widths(kept)
        assert averaged(models).metrics == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.pop("age_mean"), "KeyError: 'age_mean'"),
        (lambda header: header["calibration"].update(levels=[50, 95]), "intervals of"),
        (lambda header: header["experiment"]["training"].update(speed=2), "training.speed"),
    ],
)
def test_a_bundle_of_another_version_is_refused_in_one_line_with_that_version(
    change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path
) -> None:
    with safe_open(SHIPPED_MODEL, "np") as file:
        header = json.loads(file.metadata()["boneage"])
    header["provenance"]["software"] = "boneage 7.0"
    change(header)
    other = tmp_path / "other.safetensors"
    save_file(load_file(SHIPPED_MODEL), other, {"boneage": json.dumps(header)})
    with pytest.raises(BoneageError, match=reason) as refusal:
        load_bundle(other)
    assert str(refusal.value).startswith(f"{other} (written by boneage 7.0)")
    assert "\n" not in str(refusal.value)
