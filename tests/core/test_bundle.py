"""Promises about several models that become one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boneage_cli.core.bundle import averaged, load_bundle
from boneage_cli.core.intervals import LEVELS, Calibration


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
