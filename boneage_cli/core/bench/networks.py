"""How fast the passes of networks are, one network beside the other."""

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

from boneage_cli.core.bench.benchmark import COLUMNS, Benchmark, environment_of
from boneage_cli.core.bench.timing import WARM_UP, repetitions, throughput_figures
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
    """A network whose passes are timed.

    Attributes:
        name: What tables call it.
        load: Makes it, when its turn comes: many networks at once may not fit into memory.
    """

    name: str
    load: Callable[[], Bundle]


def parse_batch_sizes(text: str) -> list[int]:
    """Batch sizes from text such as ``1,4,8``, each once, from small to large.

    Raises:
        BoneageError: One of them is no number above 0.
    """
    try:
        sizes = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        raise BoneageError(f"--batch-sizes {text}: write numbers above 0, as 1,4,8,16,32")
    return sizes


def trained(paths: Sequence[Path]) -> list[TimedNetwork]:
    """The networks of bundles, run folders or folders of a cross-validation, by their names.

    Raises:
        BoneageError: A file is no bundle.
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
    tell: Callable[[str], None] = lambda note: None,
) -> dict[str, Experiment]:
    """The settings to measure, by the names of their networks, without pretrained weights.

    Args:
        configs: Settings files; none for the defaults.
        backbones: With commas between them, to make each network with each of them.
        tell: As in ``load_experiment``.

    Raises:
        BoneageError: At once, if one of the networks cannot be made.
    """
    vary = [f"model.backbone={backbones}"] if backbones else []
    found = {}
    for each in combinations(configs, vary, ["model.weights=none"], tell):
        # Better a mistake now than after minutes of measuring the others.
        build_network(each.experiment, *RSNA_AGES)
        name = each.experiment.name if configs else str(each.experiment.model.backbone)
        found[name] = each.experiment
    return found


def untrained(chosen: Mapping[str, Experiment]) -> list[TimedNetwork]:
    """Networks with random weights: speed does not depend on them.

    Args:
        chosen: The settings of each, by its name.
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

    A pass is what ``Predictor`` does with rendered pixels: to the device, through the network, and
    the answers back. A batch that does not fit into the GPU's memory is left out, with a note.

    Args:
        networks: The networks.
        batch_sizes: Images per pass.
        seconds: About how long to measure, shared by all; few passes are made whatever this says.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.
        backend: What runs the networks, see ``choose_backend``.

    Raises:
        BoneageError: A network cannot be made, or the device or backend is not there.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    about: dict[str, Any] = {}
    # In order; networks may differ in what runs them best.
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
    """Milliseconds of each pass over a batch."""
    random = np.random.default_rng(0)
    pixels = {
        name: random.integers(0, 256, (batch_size, *shape), np.uint8)
        for name, shape in shapes_of(predictor.bundles[0].experiment).items()
    }
    male = random.integers(0, 2, batch_size).astype(np.float32)
    times = []
    for _ in repetitions(seconds):
        begun = time.perf_counter()
        # Ends with the answers on the CPU, so nothing is left to wait for on a GPU.
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
        **throughput_figures(milliseconds, batch_size),
        "parameters": weights,
        "pixels": describe_shapes(shapes_of(bundle.experiment)),
        **{column: about[column] for column in COLUMNS if column in about},
    }


def _untrained(experiment: Experiment) -> Bundle:
    # Ages change no time.
    weights = build_network(experiment, *RSNA_AGES).state_dict()
    return Bundle(experiment, *RSNA_AGES, weights, path=Path(experiment.name))
