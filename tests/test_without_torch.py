"""Tests of the installation without torch (requirements-without-torch.txt)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LISTED = [
    Requirement(line)
    for line in (ROOT / "requirements-without-torch.txt").read_text().splitlines()
    if not line.startswith("#")
]


def with_dependencies(requirements: list[Requirement]) -> dict[str, Distribution]:
    """Returns these distributions and all their dependencies, by name."""
    found: dict[str, Distribution] = {}
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            continue
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in extras
            ):
                waiting.append(needed)
    return found


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only the listed packages and their dependencies."""
    folder = tmp_path_factory.mktemp("packages")
    for each in with_dependencies(LISTED).values():
        for name in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(str(each.locate_file(name)))
    (folder / "boneage_cli").symlink_to(ROOT / "boneage_cli")
    return folder


def boneage(installation: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # -S keeps out the packages of the environment that runs the tests.
    return subprocess.run(
        [sys.executable, "-S", "-m", "boneage_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(installation)},
    )


def test_it_asks_for_the_same_versions_as_the_whole_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    whole = {(each.name, str(each.specifier)) for each in map(Requirement, project["dependencies"])}
    assert {(each.name, str(each.specifier)) for each in LISTED} < whole
    heavy = {"torch", "torchvision", "timm", "lightning", "torchmetrics", "tensorboard"}
    assert heavy <= {name for name, _ in whole}
    assert not heavy & set(with_dependencies(LISTED))


def test_hands_are_predicted_and_evaluated_without_torch(
    installation: Path, demo_data: Path, tmp_path: Path
) -> None:
    table, whole, small = demo_data / "test.csv", tmp_path / "whole.csv", tmp_path / "small.csv"
    arguments = ["predict", table, "--interval", "90", "--device", "cpu", "--output"]
    subprocess.run(
        [sys.executable, "-m", "boneage_cli", *map(str, [*arguments, whole])],
        check=False,
        capture_output=True,
    )
    predicted = boneage(installation, *arguments, small)
    assert predicted.returncode in (0, 1), predicted.stderr
    assert small.read_bytes() == whole.read_bytes()

    for command in (
        ["evaluate", "--data", demo_data, "--output", tmp_path / "evaluation"],
        ["check-data", "--data", demo_data, "--report", tmp_path / "report"],
        ["locate-rois", demo_data / "test", "--output", tmp_path / "rois"],
        ["fetch", "demo", "--to", tmp_path / "demo", "--train", "2", "--test", "2"],
    ):
        done = boneage(installation, *command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "DATA"],
        ["export", "--output", "model.onnx"],
        ["predict", "DATA/test", "--sex", "F", "--backend", "torch"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_torch_says_so_in_one_line(
    arguments: list[str], installation: Path, demo_data: Path
) -> None:
    done = boneage(installation, *(part.replace("DATA", str(demo_data)) for part in arguments))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "is not installed" in done.stderr
    assert "Traceback" not in done.stderr
