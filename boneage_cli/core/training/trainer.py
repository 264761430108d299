"""The Lightning trainer and the training steps that every training runs in, and its devices."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch

from boneage_cli.core.config import Experiment, TrainingSettings
from boneage_cli.core.hardware import choose_precision, keep_freed_memory
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.errors import BoneageError
from boneage_cli.models.depthwise_gradients import use_fast_depthwise_gradients
from boneage_cli.models.network import Network

LIGHTNING_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_module(network: Network, experiment: Experiment) -> BoneAgeModule:
    """The training steps of a network, in the memory format that is fastest, compiled on request.

    Args:
        network: The network; it is changed in place.
        experiment: The settings.
    """
    # Convolutions run a quarter faster so on CPUs, and on the tensor cores of GPUs.
    network.to(memory_format=torch.channels_last)
    use_fast_depthwise_gradients(network)
    module = BoneAgeModule(network, experiment)
    if experiment.training.compile:
        network.compile()
    return module


def make_trainer(
    settings: TrainingSettings, *, devices: str = "auto", nodes: int = 1, **options: Any
) -> pl.Trainer:
    """The Lightning trainer that every training of months or sex runs in.

    Args:
        settings: Epochs, precision, clipping and the like.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: The number of machines.
        options: Logger, callbacks and whatever else differs, as Lightning takes them.

    Raises:
        BoneageError: ``devices`` makes no sense, or the device cannot run at this precision.
    """
    _quiet_lightning()
    accelerator, count = accelerator_of(devices)
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    if accelerator == "cpu":
        keep_freed_memory()
    # A frozen encoder gets no gradients, which the processes must expect and look for.
    parallel = "ddp_find_unused_parameters_true" if settings.frozen_epochs else "ddp"
    return pl.Trainer(
        accelerator=accelerator,
        devices=count,
        num_nodes=nodes,
        strategy=parallel if nodes * count > 1 else "auto",
        precision=LIGHTNING_PRECISION[choose_precision(settings.precision, device, training=True)],
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        accumulate_grad_batches=settings.accumulate,
        deterministic=settings.deterministic or None,
        # Batches have one or two shapes, so trying cuDNN's algorithms on the first pays.
        benchmark=accelerator == "gpu" and not settings.deterministic,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def accelerator_of(devices: str) -> tuple[str, int]:
    """What ``--devices`` asks for: ``gpu`` or ``cpu``, and how many.

    Raises:
        BoneageError: It makes no sense, or there are not so many.
    """
    gpu = torch.cuda.is_available()
    if devices == "auto":
        return ("gpu", torch.cuda.device_count()) if gpu else ("cpu", 1)
    if devices == "cpu":
        return "cpu", 1
    if not devices.isdigit() or int(devices) < 1:
        raise BoneageError(f"--devices {devices}: take auto, cpu or a number of devices")
    if gpu and int(devices) > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise BoneageError(f"--devices {devices}: there are {there} GPUs here; take up to {there}")
    return "gpu" if gpu else "cpu", int(devices)


def device_of(devices: str) -> str:
    """Where one process of a training runs: ``cuda`` or ``cpu``."""
    return "cuda" if accelerator_of(devices)[0] == "gpu" else "cpu"


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It advises loader processes, which cached bytes do not need, and logging at every step.
    warnings.filterwarnings("ignore", module=r"lightning\.")
