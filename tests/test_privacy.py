"""Tests that commands make no network connections and write no user ids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boneage_cli.datasets.manifest import read_manifest

# Written as sitecustomize.py, which Python imports at startup; forked processes keep the hook.
WATCH = """
import os, sys

def watch(event, values):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        if event == "socket.getaddrinfo" or not isinstance(values[1], (str, bytes)):
            with open(os.environ["SEEN"], "a") as file:
                print(os.getpid(), event, values, file=file)

sys.addaudithook(watch)
"""


@pytest.mark.parametrize(
    "command",
    [
        "predict RADIOGRAPH --sex F",
        "predict RADIOGRAPH --sex F --model OWN",
        "locate-rois RADIOGRAPH --output OUT",
        "train --config CONFIG --data DATA --runs OUT --devices cpu",
        "export --model OWN --format openvino --output OUT.xml",
        "export --model OWN --output OUT.onnx",
    ],
)
def test_no_command_but_fetch_talks_to_anybody(
    command: str, demo_bundle: Path, demo_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    seen, home = tmp_path / "seen.txt", tmp_path / "home"
    home.mkdir()
    given = {
        "RADIOGRAPH": read_manifest(demo_data, "test")["path"][0],
        "OWN": str(demo_bundle),
        "DATA": str(demo_data),
        "CONFIG": str(demo_bundle.with_name("settings.toml")),
        "OUT": str(tmp_path / "out"),
        "OUT.xml": str(tmp_path / "out.xml"),
        "OUT.onnx": str(tmp_path / "out.onnx"),
    }
    own = {
        "PYTHONPATH": str(tmp_path),
        "SEEN": str(seen),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "BONEAGE_CACHE": str(tmp_path / "cache"),
    }
    subprocess.run(
        [sys.executable, "-m", "boneage_cli", *(given.get(word, word) for word in command.split())],
        check=True,
        capture_output=True,
        env=os.environ | own,
    )
    assert not seen.exists(), seen.read_text()
    # The telemetry of C++ libraries would leave a user id in one of these folders.
    assert not {"intel", "Microsoft"} & {path.name for path in home.rglob("*")}
