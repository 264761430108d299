"""Where, when and with what a figure was measured, which every figure carries."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from boneage_cli import __version__
from boneage_cli.core.hardware import describe_hardware, device_type

# What may run networks beside torch, where it is installed.
PACKAGES = ("openvino", "onnxruntime")


def busy() -> float | None:
    """Programs that compete for the processor's cores, per core; None where nobody counts them."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def where_and_when(device: str | torch.device) -> dict[str, Any]:
    """Device, hardware, versions and date, which every figure carries."""
    return {
        "device": device_type(device),
        "hardware": describe_hardware(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **_versions(),
        "boneage": __version__,
        "date": datetime.now().isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
