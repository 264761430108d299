"""Benchmark of the forward passes of networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from boneage_cli.core.bench.benchmark import COLUMNS, Benchmark
from boneage_cli.core.bench.environment import environment_of
from boneage_cli.core.bench.timing import WARM_UP, repetitions, throughput_metrics
from boneage_cli.core.bundle import Bundle, build_network, load_bundle
from boneage_cli.core.combinations import combinations
from boneage_cli.core.config import Experiment
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import bundles_at
from boneage_cli.core.views import describe_shapes, shapes_of
from boneage_cli.errors import BoneageError
from boneage_cli.models.network import RSNA_AGES
from boneage_cli.progress import track


@dataclass(frozen=True)
class TimedNetwork:
    """A network to be timed.

    Attributes:
        name: Its name in tables.
        load: Loads it just before it is timed, because all networks may not fit into memory.
    """

    name: str
    load: Callable[[], Bundle]


def parse_batch_sizes(text: str) -> list[int]:
    """Parses batch sizes such as ``1,4,8``; returns each once, from small to large.

    Raises:
        BoneageError: One of them is not an integer above 0.
    """
    try:
        sizes = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        raise BoneageError(f"--batch-sizes {text}: write numbers above 0, as 1,4,8,16,32")
    return sizes


def trained(paths: Sequence[Path]) -> list[TimedNetwork]:
    """Returns the networks of bundles, run folders or cross-validations, with unique names.

    Raises:
        BoneageError: A file is not a bundle.
    """
    files = list(dict.fromkeys(file for path in paths for file in bundles_at(path)))
    names = [load_bundle(file).experiment.name for file in files]
    return [
        TimedNetwork(
            name if names.count(name) == 1 else f"{name} ({file})", partial(load_bundle, file)
        )
        for name, file in zip(names, files, strict=True)
    ]


def experiments(
    configs: Sequence[Path],
    backbones: str | None = None,
) -> dict[str, Experiment]:
    """Returns the settings to measure, by network name, without pretrained weights.

    Args:
        configs: Settings files; none for the defaults.
        backbones: Comma-separated backbones, each combined with each settings file.

    Raises:
        BoneageError: One of the networks cannot be built.
    """
    vary = [f"model.backbone={backbones}"] if backbones else []
    found = {}
    for each in combinations(configs, vary, ["model.weights=none"]):
        # Built now, so that invalid settings fail before the others are measured for minutes.
        build_network(each.experiment, *RSNA_AGES)
        name = each.experiment.name if configs else str(each.experiment.model.backbone)
        found[name] = each.experiment
    return found


def untrained(chosen: Mapping[str, Experiment]) -> list[TimedNetwork]:
    """Returns networks with random weights, since speed does not depend on the weights.

    Args:
        chosen: The settings by network name.
    """
    return [TimedNetwork(name, partial(_untrained, each)) for name, each in chosen.items()]


def benchmark_networks(
    networks: Sequence[TimedNetwork],
    *,
    batch_sizes: Sequence[int] = (1, 4, 8, 16, 32),
    seconds: float = 60,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
) -> Benchmark:
    """Times passes of networks over batches of uint8 pixels, one network after the other.

    A pass is what ``Predictor`` does with rendered pixels: transfer to the device, forward pass,
    and transfer of the result. A batch that does not fit into the GPU's memory is left out, with a
    note.

    Args:
        networks: The networks.
        batch_sizes: Images per pass.
        seconds: Approximate duration, shared by all; a minimum of passes is made in any case.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.
        backend: The backend of the networks, see ``choose_backend``.

    Raises:
        BoneageError: A network cannot be built, or the device or backend is not available.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    about: dict[str, Any] = {}
    # An ordered set; the automatic choice may differ between networks.
    used: dict[tuple[str, str], None] = {}
    rounds = len(networks) * len(batch_sizes)
    bar: tqdm[Any] = track(total=rounds, description="bench", unit="batch size")
    with bar:
        for network in networks:
            predictor = Predictor([network.load()], device, precision, backend)
            (bundle,) = predictor.bundles
            weights = sum(weight.numel() for weight in bundle.network().parameters())
            about = about or environment_of(predictor, seconds) | {
                "models": [n.name for n in networks]
            }
            used |= {(predictor.backend, predictor.precision): None}
            for size in batch_sizes:
                try:
                    passes = _passes(predictor, size, seconds / rounds)
                except torch.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    notes.append(f"{network.name}, batch {size}: does not fit into memory")
                else:
                    rows.append(_row(network.name, predictor, size, passes, weights))
                bar.update()
    for name, values in zip(("backend", "precision"), zip(*used, strict=True), strict=True):
        about[name] = ", ".join(dict.fromkeys(values))
    return Benchmark(about=about, throughput=rows, notes=notes)


def _passes(predictor: Predictor, batch_size: int, seconds: float) -> list[float]:
    """Returns the milliseconds of each pass over a batch."""
    random = np.random.default_rng(0)
    pixels = {
        name: random.integers(0, 256, (batch_size, *shape), np.uint8)
        for name, shape in shapes_of(predictor.bundles[0].experiment).items()
    }
    male = random.integers(0, 2, batch_size).astype(np.float32)
    times = []
    for _ in repetitions(seconds):
        begun = time.perf_counter()
        # Returns when the results are on the CPU, so a GPU needs no synchronisation.
        predictor.predict_pixels(lambda rows: pixels, male, batch_size=batch_size)
        times.append(1000 * (time.perf_counter() - begun))
    return times[WARM_UP:]


def _row(
    name: str, predictor: Predictor, batch_size: int, milliseconds: Sequence[float], weights: int
) -> dict[str, Any]:
    (bundle,) = predictor.bundles
    about = environment_of(predictor)
    return {
        "model": name,
        "batch_size": batch_size,
        "passes": len(milliseconds),
        **throughput_metrics(milliseconds, batch_size),
        "parameters": weights,
        "pixels": describe_shapes(shapes_of(bundle.experiment)),
        **{column: about[column] for column in COLUMNS if column in about},
    }


def _untrained(experiment: Experiment) -> Bundle:
    # The mean and deviation of ages do not affect speed.
    weights = build_network(experiment, *RSNA_AGES).state_dict()
    return Bundle(experiment, *RSNA_AGES, weights, path=Path(experiment.name))
