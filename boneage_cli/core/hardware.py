"""What the machine can do: device and numeric precision."""

from __future__ import annotations

import contextlib
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

from boneage_cli.errors import BoneageError

Precision = Literal["32", "bf16", "fp16"]


def choose_device(name: str = "auto") -> torch.device:
    """The device to run on: ``auto`` takes a CUDA GPU where there is one.

    Raises:
        BoneageError: The device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BoneageError(f"--device {name}: unknown; take auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BoneageError(f"--device {name}: no CUDA GPU was found; take --device cpu")
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision of the network's arithmetic.

    ``auto`` takes bf16 on GPUs and CPUs that have it in hardware, fp16 (with loss scaling in
    training) on older GPUs, and fp32 elsewhere: emulated bf16 is slower than fp32.

    Raises:
        BoneageError: The precision is unknown, or fp16 is asked of a CPU.
    """
    if name not in ("auto", "32", "bf16", "fp16"):
        raise BoneageError(f"--precision {name}: unknown; take auto, 32, bf16 or fp16")
    if name == "fp16" and device.type == "cpu":
        raise BoneageError("--precision fp16: CPUs train and predict in 32 or bf16")
    if name != "auto":
        return name  # type: ignore[return-value]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the network runs at this precision."""
    if precision == "32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def describe_hardware(device: torch.device) -> str:
    """The device's name for tables and records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _cpu_name() -> str:
    # Linux tells platform.processor() the architecture alone, or nothing.
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cpu_has_bf16() -> bool:
    # The checks are private in torch and may be missing from a version of it.
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)
