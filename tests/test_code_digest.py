"""Tests that what is kept on disk is made anew when the code that made it changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import boneage_cli

# Prints what identifies cached views, CLAHE copies and converted networks.
PROGRAM = """
import json, sys
from pathlib import Path
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.cached_views import view_pixels
from boneage_cli.core.conversion_cache import cached_path
from boneage_cli.core.runs import SHIPPED_MODEL
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.datasets.offline_clahe import clahe_files

data, work = map(Path, sys.argv[1:])
one = read_manifest(data, "test")[:1]
bundle = load_bundle(SHIPPED_MODEL)
view_pixels(one, ViewRenderer(view_settings(bundle.experiment)), work / "cache")
clahe_files([Path(one["path"][0])], work / "copies")
print(json.dumps({
    "views": [path.name for path in (work / "cache").glob("pixels-*")],
    "copies": [path.stat().st_mtime_ns for path in (work / "copies").glob("*.png")],
    "network": str(cached_path(bundle.graph())),
}))
"""


@pytest.mark.parametrize(
    ("file", "made_anew"),
    [
        ("imaging/resize.py", {"views", "copies"}),
        ("core/views.py", {"views"}),
        ("models/pooling.py", {"network"}),
        ("core/summary.py", set()),
    ],
)
def test_only_what_changed_code_made_is_made_anew(
    file: str, made_anew: set[str], demo_data: Path, tmp_path: Path
) -> None:
    original = Path(boneage_cli.__file__).parent
    package = tmp_path / original.name
    shutil.copytree(original, package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    (package / "weights").symlink_to(original / "weights")
    (tmp_path / "program.py").write_text(PROGRAM)

    def made() -> dict[str, object]:
        command = [sys.executable, tmp_path / "program.py", demo_data, tmp_path / "work"]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, object] = json.loads(told.stdout)
        return found

    before = made()
    with (package / file).open("a") as code:
        code.write("# Changed.\n")
    after = made()
    assert {name for name in before if before[name] != after[name]} == made_anew
