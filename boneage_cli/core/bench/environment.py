"""The environment of a measurement: device, hardware, versions, date and load."""

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

# Optional backends besides torch.
PACKAGES = ("openvino", "onnxruntime")


def busy() -> float | None:
    """One-minute load average per core; None if the system does not report it."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def where_and_when(device: str | torch.device) -> dict[str, Any]:
    """Returns device, hardware, versions and date, which are stored with every measurement."""
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
