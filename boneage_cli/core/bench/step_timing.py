"""What the steps of a training spend their time on: its parts, and torch's operators."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import Profiler

from boneage_cli.core.bench.arithmetic import wait_for

PARTS = ("loading", "augmentation", "forward", "backward", "optimiser", "rest")
# Operators that are told of; the others take little.
_OPERATORS = 8


def time_shares(split: Mapping[str, float], flops: float, peak: float) -> dict[str, float]:
    """What the time of a step goes to, as fractions that add up to 1.

    Args:
        split: Milliseconds of each of ``PARTS``.
        flops: Of the step.
        peak: The device's, per second.

    Returns:
        ``arithmetic``: what the network's arithmetic would take at the peak; ``network``: what
        forward and backward take beyond that; and the other parts.
    """
    whole = sum(split.values())
    passes = split["forward"] + split["backward"]
    arithmetic = min(1000 * flops / peak, passes)
    others = {part: split[part] for part in PARTS if part not in ("forward", "backward")}
    times = {"arithmetic": arithmetic, "network": passes - arithmetic, **others}
    return {name: value / whole for name, value in times.items()}


class StepSplit(Profiler):
    """Shares the time of every epoch out among ``PARTS``: all of it, to the part that runs.

    Args:
        device: It is waited for wherever a part begins or ends.

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
        """Begins a part, within another or not."""
        part = _part(action_name)
        if part is None:
            return
        if action_name == _EPOCH:
            self.epochs.append(dict.fromkeys(PARTS, 0.0))
        self._account()
        self._running.append(part)

    def stop(self, action_name: str) -> None:
        """Ends a part; what it lies in goes on."""
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
# What Lightning calls the parts. Weights are averaged once the batch has ended.
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
    """The time of torch's operators in the last epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # torch's profiler writes lines of its own to the terminal, errors where there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self.profile = torch.autograd.profiler.profile(
            use_device="cuda" if device.type == "cuda" else None, record_shapes=True
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begins to look."""
        if trainer.current_epoch == (trainer.max_epochs or 0) - 1:
            self.profile.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Ends looking."""
        if trainer.current_epoch == (trainer.max_epochs or 0) - 1:
            wait_for(self.device)
            self.profile.__exit__(None, None, None)

    def shares(self) -> dict[str, float]:
        """Fractions of the operators' time, the most first."""
        own = "self_cpu_time_total" if self.device.type == "cpu" else "self_device_time_total"
        times: dict[str, float] = {}
        for event in self.profile.key_averages(group_by_input_shape=True):
            if event.key.startswith("aten::"):
                name = _operator(event.key.removeprefix("aten::"), event.input_shapes)
                times[name] = times.get(name, 0.0) + float(getattr(event, own))
        # A profiler that may not look into a GPU says that nothing took time.
        whole = sum(times.values()) or 1.0
        most = sorted(times.items(), key=lambda item: item[1], reverse=True)[:_OPERATORS]
        return {name: spent / whole for name, spent in most if spent}


def _operator(name: str, shapes: Sequence[Sequence[int]]) -> str:
    # Depthwise and other grouped convolutions compute little for the memory that they move.
    images = [shape for shape in shapes if len(shape) == 4]
    if "convolution" in name and len(images) > 1:
        pixels, kernel = images[-2:]
        return f"grouped {name}" if pixels[1] > kernel[1] else name
    return name
