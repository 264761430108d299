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
from boneage_cli.core.prediction.predictor import Predictor

# Optional backends besides torch.
PACKAGES = ("openvino", "onnxruntime")


def load_per_core() -> float | None:
    """One-minute load average per core; None if the system does not report it."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def environment(device: str | torch.device) -> dict[str, Any]:
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


def environment_of(predictor: Predictor, seconds: float | None = None) -> dict[str, Any]:
    """Returns device, hardware, versions, date, backend and precision of a measurement.

    Args:
        predictor: The timed predictor.
        seconds: The requested duration, for the record of a whole benchmark; None for one row.
    """
    return {
        **environment(predictor.device),
        "backend": predictor.backend,
        "precision": predictor.precision,
        **({} if seconds is None else {"seconds": seconds, "load_per_core": load_per_core()}),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
