"""Bone age in years and months from hand radiographs: a research tool, not a medical device."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boneage_cli.core.prediction.predictor import Predictor
    from boneage_cli.imaging.reading import read_radiograph

__all__ = ["Predictor", "__version__", "read_radiograph"]
__version__ = "0.1.0"

# OpenVINO reports each import to its maker, with a persistent id of the user, through this
# package; if it cannot be imported, nothing is sent.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# ONNX Runtime also sends telemetry unless this variable is set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # Slow imports are deferred until first use.
    if name == "Predictor":
        from boneage_cli.core.prediction.predictor import Predictor

        return Predictor
    if name == "read_radiograph":
        from boneage_cli.imaging.reading import read_radiograph

        return read_radiograph
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
