"""Choices that commands offer and the engine takes; imports nothing, so commands start fast."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32", "mixed", "bf16", "fp16"]
Backend = Literal["auto", "torch", "compiled", "onnxruntime", "openvino"]
PredictionFormat = Literal["text", "csv", "json", "jsonl"]
ExportFormat = Literal["onnx", "openvino"]
RoiMethod = Literal["keypoints", "gradcam"]
Background = Literal["keep", "remove"]
Uploader = Literal["kmader", "ipythonx"]
