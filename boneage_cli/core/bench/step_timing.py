"""Times the parts of a training step and torch's operators."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import Profiler
from torch.profiler import ProfilerActivity

from boneage_cli.core.bench.arithmetic import wait_for

STEP_PARTS = ("loading", "augmentation", "forward", "backward", "optimiser", "rest")
# Number of operators that are reported; the others take little time.
_OPERATORS = 8


def time_shares(split: Mapping[str, float], flops: float, peak: float) -> dict[str, float]:
    """Returns the shares of a step's time, which add up to 1.

    Args:
        split: Milliseconds of each of ``STEP_PARTS``.
        flops: Floating-point operations of the step.
        peak: Peak rate of the device, FLOP/s.

    Returns:
        ``arithmetic``: the time of the network's operations at the peak rate; ``network``: the rest
        of the forward and backward passes; and the other parts.
    """
    whole = sum(split.values())
    passes = split["forward"] + split["backward"]
    arithmetic = min(1000 * flops / peak, passes)
    others = {part: split[part] for part in STEP_PARTS if part not in ("forward", "backward")}
    times = {"arithmetic": arithmetic, "network": passes - arithmetic, **others}
    return {name: value / whole for name, value in times.items()}


class StepSplit(Profiler):
    """Divides the time of every epoch among ``STEP_PARTS``; the innermost running part counts.

    Args:
        device: The training device, synchronised whenever a part begins or ends.

    Attributes:
        epochs: Seconds of each part, for each epoch.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.epochs: list[dict[str, float]] = []
        self._running: list[str] = []
        self._last = 0.0

    def start(self, action_name: str) -> None:
        """Begins a part, which may be nested in another."""
        part = _part(action_name)
        if part is None:
            return
        if action_name == _EPOCH:
            self.epochs.append(dict.fromkeys(STEP_PARTS, 0.0))
        self._account()
        self._running.append(part)

    def stop(self, action_name: str) -> None:
        """Ends a part; the part around it continues."""
        if _part(action_name) is not None:
            self._account()
            self._running.pop()

    def _account(self) -> None:
        wait_for(self.device)
        now = time.perf_counter()
        if self._running:
            self.epochs[-1][self._running[-1]] += now - self._last
        self._last = now


_EPOCH, AUGMENTATION = "run_training_epoch", "augmentation"
# Parts by Lightning's action names. Averaged weights are updated in on_train_batch_end.
_ACTIONS = {
    "train_dataloader_next": "loading",
    "batch_to_device": "loading",
    AUGMENTATION: "augmentation",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimiser",
    "optimizer_zero_grad": "optimiser",
    "lr_scheduler_step": "optimiser",
    "on_train_batch_end": "optimiser",
    _EPOCH: "rest",
}


def _part(action: str) -> str | None:
    return None if action.startswith("[Callback]") else _ACTIONS.get(action.rpartition(".")[2])


class Operators(pl.Callback):
    """Profiles torch's operators in the last epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Silences log lines of torch's profiler, such as errors if there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        # On a GPU with its kernels: the time around an operator's call includes waiting.
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.profile = torch.profiler.profile(activities=activities, record_shapes=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Starts the profiler at the last epoch."""
        if trainer.current_epoch == (trainer.max_epochs or 0) - 1:
            self.profile.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stops the profiler after the last epoch."""
        if trainer.current_epoch == (trainer.max_epochs or 0) - 1:
            wait_for(self.device)
            self.profile.__exit__(None, None, None)

    def shares(self) -> dict[str, float]:
        """Returns the shares of the operators' time, the largest first."""
        own = "self_cpu_time_total" if self.device.type == "cpu" else "self_device_time_total"
        times: dict[str, float] = {}
        for event in self.profile.key_averages(group_by_input_shape=True):
            if event.key.startswith("aten::"):
                name = _operator(event.key.removeprefix("aten::"), event.input_shapes)
                times[name] = times.get(name, 0.0) + float(getattr(event, own))
        # A profiler without access to the GPU reports zero for all times.
        whole = sum(times.values()) or 1.0
        most = sorted(times.items(), key=lambda item: item[1], reverse=True)[:_OPERATORS]
        return {name: spent / whole for name, spent in most if spent}


def _operator(name: str, shapes: Sequence[Sequence[int]]) -> str:
    # Listed separately: grouped (depthwise) convolutions compute little for the memory they move.
    images = [shape for shape in shapes if len(shape) == 4]
    if "convolution" in name and len(images) > 1:
        pixels, kernel = images[-2:]
        return f"grouped {name}" if pixels[1] > kernel[1] else name
    return name
