"""Tests of hardware settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HUGE_PAGES = SWITCH.exists() and "[always]" in SWITCH.read_text()

# Prints the page faults of the last of 16 tensors of 64 MB, each freed before the next. The first
# ones do not count: small allocations may occupy part of the freed memory.
NEW_PAGES = """
import resource
import torch
from boneage_cli.core.config import TrainingSettings
from boneage_cli.core.training.trainer import make_trainer

make_trainer(TrainingSettings(), devices="cpu")
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16, 1024, 1024)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(taken)
"""


@pytest.mark.skipif(HUGE_PAGES, reason="huge pages are always on, so few faults tell nothing")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries differ")
@pytest.mark.parametrize(("variables", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "4"}, False)])
def test_training_keeps_the_memory_that_it_frees_unless_the_user_set_how(
    variables: dict[str, str], kept: bool
) -> None:
    others = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", NEW_PAGES],
        check=True,
        capture_output=True,
        text=True,
        env=others | variables,
    )
    assert (int(found.stdout) < 1000) == kept
