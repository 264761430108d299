"""Tests of the Python API."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boneage_cli
from boneage_cli.core.prediction.cases import REASONS
from boneage_cli.datasets.manifest import read_manifest


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, boneage_cli; sys.exit(bool({'numpy', 'torch', 'cv2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_predictor_answers_or_says_why_not(demo_bundle: Path, demo_data: Path) -> None:
    radiograph = boneage_cli.read_radiograph(read_manifest(demo_data, "test")["path"][0])
    own = boneage_cli.Predictor.load([str(demo_bundle)], device="cpu")
    months, refused = own.answer([radiograph], male=[False])
    assert (0 < months[0] < 240, refused) == (True, [None])
    black = replace(radiograph, pixels=np.zeros_like(radiograph.pixels))
    _, refused = boneage_cli.Predictor.load(device="cpu").answer([black], male=[False])
    assert refused[0] in REASONS


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'predictor'"):
        boneage_cli.predictor  # noqa: B018
