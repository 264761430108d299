"""Makes the Lightning trainer and module, and chooses their devices."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)

from boneage_cli.core.config import Experiment, TrainingSettings
from boneage_cli.core.hardware import Arithmetic, choose_precision, keep_freed_memory
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.errors import BoneageError
from boneage_cli.models.depthwise_gradients import use_fast_depthwise_gradients
from boneage_cli.models.network import Network

LIGHTNING_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_module(network: Network, experiment: Experiment) -> BoneAgeModule:
    """Makes the Lightning module of a network, in the fastest memory format, compiled on request.

    Args:
        network: The network; it is changed in place.
        experiment: The settings.
    """
    # In this format convolutions are a quarter faster on CPUs, and use the tensor cores of GPUs.
    network.to(memory_format=torch.channels_last)
    use_fast_depthwise_gradients(network)
    module = BoneAgeModule(network, experiment)
    if experiment.training.compile:
        network.compile()
    return module


def make_trainer(
    settings: TrainingSettings, *, devices: str = "auto", nodes: int = 1, **options: Any
) -> pl.Trainer:
    """Makes the Lightning trainer of every training for bone age or sex.

    Args:
        settings: Epochs, precision, clipping and the like.
        devices: ``auto``, ``cpu``, or a number of GPUs or processes.
        nodes: The number of machines.
        options: Further arguments of ``pl.Trainer``, such as logger and callbacks.

    Raises:
        BoneageError: ``devices`` is invalid, or the device does not support this precision.
    """
    _quiet_lightning()
    accelerator, count = accelerator_of(devices)
    if accelerator == "cpu":
        keep_freed_memory()
    # A frozen encoder gets no gradients; DDP must then search for unused parameters.
    parallel = "ddp_find_unused_parameters_true" if settings.frozen_epochs else "ddp"
    return pl.Trainer(
        accelerator=accelerator,
        devices=count,
        num_nodes=nodes,
        strategy=parallel if nodes * count > 1 else "auto",
        precision=LIGHTNING_PRECISION[training_precision(settings.precision, devices)],
        plugins=_environment(nodes * count),
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        accumulate_grad_batches=settings.accumulate,
        deterministic=settings.deterministic,
        # Batches have only one or two shapes, so benchmarking cuDNN's algorithms pays off.
        benchmark=accelerator == "gpu" and not settings.deterministic,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


def training_precision(name: str, devices: str) -> Arithmetic:
    """Returns the precision in which a setting makes these devices train.

    Raises:
        BoneageError: ``devices`` is invalid, or does not support the precision.
    """
    return choose_precision(name, device_of(devices), training=True)


def _environment(processes: int) -> ClusterEnvironment | None:
    """Returns how the processes find each other; None if Lightning can tell."""
    if processes == 1:
        # Else a task of a Slurm job would look for the others, which train models of their own.
        return LightningEnvironment()
    if SLURMEnvironment.detect():
        # Else Slurm would start an interrupted training again by itself, from a file in the
        # working directory.
        return SLURMEnvironment(auto_requeue=False)
    return None


def accelerator_of(devices: str) -> tuple[str, int]:
    """Returns the accelerator that ``--devices`` names, ``gpu`` or ``cpu``, and their number.

    Raises:
        BoneageError: The value is invalid, or there are fewer devices.
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
    # Each process has a copy of the network: a hundred of them stop a machine.
    if not gpu and int(devices) > max(2, os.cpu_count() or 1):
        raise BoneageError(
            f"--devices {devices}: more processes than CPU cores here; take cpu, which uses all "
            "cores in one process"
        )
    return "gpu" if gpu else "cpu", int(devices)


def device_of(devices: str) -> str:
    """Returns the device type of one training process, ``cuda`` or ``cpu``."""
    return "cuda" if accelerator_of(devices)[0] == "gpu" else "cpu"


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Lightning recommends loader workers, which cached arrays do not need, and logging each step.
    warnings.filterwarnings("ignore", module=r"lightning\.")
