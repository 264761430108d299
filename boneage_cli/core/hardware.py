"""Device and numeric precision.

Torch is imported only if there may be a GPU or it is needed otherwise, since that takes seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from boneage_cli.cpu_limits import usable_threads
from boneage_cli.errors import BoneageError
from boneage_cli.wording import counted

if TYPE_CHECKING:
    import torch

Arithmetic = Literal["32", "mixed", "bf16", "fp16"]
# Driver libraries whose presence means that there may be a GPU: NVIDIA's on Linux and on Windows,
# and AMD's (torch calls AMD GPUs cuda, too).
_DRIVERS = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")


def choose_device(name: str = "auto") -> str:
    """Chooses the device: ``auto`` means a CUDA GPU if there is one, else the CPU.

    Returns:
        ``cpu``, ``cuda``, or ``cuda:1`` and so on.

    Raises:
        BoneageError: The device is unknown or does not exist.
    """
    if name == "auto":
        return "cuda" if _has_gpu() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or name == kind):
        raise BoneageError(f"--device {name}: unknown; take auto, cpu or cuda")
    if kind == "cuda":
        if not _has_gpu():
            raise BoneageError(f"--device {name}: no CUDA GPU was found; take --device cpu")
        import torch

        if int(number or 0) >= torch.cuda.device_count():
            raise BoneageError(f"--device {name}: there is no such GPU; take --device cuda")
    return name


def device_type(device: str | torch.device) -> str:
    """The device without its number: ``cpu`` or ``cuda``."""
    return str(device).partition(":")[0]


def choose_precision(
    name: str, device: str | torch.device, *, training: bool = False
) -> Arithmetic:
    """Chooses the precision of the network's arithmetic.

    For training, ``auto`` means bf16 on GPUs and CPUs that support it in hardware, fp16 (with loss
    scaling) on older GPUs, and fp32 elsewhere: emulated bf16 is slower than fp32. For prediction it
    means fp16 on GPUs and fp32 on CPUs: on 150 radiographs bf16 changed the ages by 0.29 months on
    average and by up to 1.7, fp16 by 0.03 and up to 0.12. ``mixed`` is bf16 for most of a network
    and fp32 where accuracy matters, see ``core.mixed_precision``.

    Raises:
        BoneageError: The precision is unknown, or the device does not support it.
    """
    if name not in ("auto", *get_args(Arithmetic)):
        raise BoneageError(f"--precision {name}: unknown; take auto, 32, mixed, bf16 or fp16")
    kind = device_type(device)
    if name == "fp16" and kind == "cpu":
        asked = "training.precision = fp16" if training else "--precision fp16"
        raise BoneageError(f"{asked}: not available on CPUs; use 32 or bf16")
    if name == "mixed" and training:
        raise BoneageError("--precision mixed: is for predicting; networks train in 32 or bf16")
    if name == "mixed" and not (kind == "cpu" and cpu_has_bf16()):
        raise BoneageError("--precision mixed: is for CPUs with bf16; add --precision 32")
    if name != "auto":
        return name  # type: ignore[return-value]
    if not training:
        return "fp16" if kind == "cuda" else "32"
    if kind == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "32"


def autocast(precision: Arithmetic, device: str | torch.device) -> AbstractContextManager[object]:
    """The context in which torch runs a network at this precision."""
    if precision in ("32", "mixed"):
        return nullcontext()
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device_type(device), dtype=dtype)


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for reuse instead of returning it to the system.

    A training step on a CPU frees hundreds of megabytes and allocates as much again. By default
    glibc returns large blocks to the system at once, which then has to clear every page again: a
    quarter of the training time. Does nothing if a ``MALLOC_…`` variable is set, or without glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    # -4 is M_MMAP_MAX and -1 is M_TRIM_THRESHOLD in malloc.h; the value -1 means no threshold.
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 — glibc only: others may use other constants
        library.mallopt(-4, 0)
        library.mallopt(-1, -1)


def describe_hardware(device: str | torch.device) -> str:
    """The device's name for tables and records."""
    if device_type(device) == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {counted(usable_threads(), 'thread')}"


def _cpu_name() -> str:
    # On Linux platform.processor() returns only the architecture, or nothing.
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _has_gpu() -> bool:
    for driver in _DRIVERS:
        try:
            ctypes.CDLL(driver)
        except OSError:
            continue
        import torch

        return torch.cuda.is_available()
    return False


def cpu_has_bf16() -> bool:
    """Whether the CPU supports bf16 in hardware; False on systems other than Linux."""
    with contextlib.suppress(OSError):
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        return not flags.isdisjoint(("amx_bf16", "avx512_bf16"))
    return False
