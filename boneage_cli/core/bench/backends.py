"""Benchmark of backends: their speed, and how much their ages differ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from boneage_cli.choices import Backend
from boneage_cli.core.bench.benchmark import Benchmark
from boneage_cli.core.bench.environment import environment_of
from boneage_cli.core.bench.images import radiographs
from boneage_cli.core.bench.networks import TimedNetwork, benchmark_networks, trained
from boneage_cli.core.hardware import choose_device, choose_precision
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runtime import choose_backend
from boneage_cli.core.views import Rendered
from boneage_cli.errors import BoneageError
from boneage_cli.progress import track


def parse_backends(text: str) -> list[str]:
    """Parses names of backends such as ``torch,openvino``, each once; or ``all``.

    Raises:
        BoneageError: One of them is unknown.
    """
    known = ["all", *get_args(Backend)]
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names or not set(names) <= set(known):
        raise BoneageError(f"--backends {text}: write some of {', '.join(known)}")
    return names


def benchmark_backends(
    models: Sequence[Path],
    backends: Sequence[str],
    images: Sequence[str] = (),
    *,
    male: bool = True,
    batch_sizes: Sequence[int] = (1, 4, 8, 16, 32),
    seconds: float = 60,
    device: str = "auto",
    precision: str = "auto",
) -> Benchmark:
    """Times one model on several backends, and compares ages with torch in full precision.

    Args:
        models: A single bundle or run folder.
        backends: The backends, see ``choose_backend``; ``all`` for those that run here.
        images: Radiographs whose ages are compared, see ``benchmark_model``; all of them are used.
        male: Sex of children for whom no table gives it.
        batch_sizes: Batch sizes of the network's passes.
        seconds: Approximate duration, shared by all.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.

    Raises:
        BoneageError: There are several models, a model or radiograph cannot be read, or a backend
            is not available.
    """
    networks = trained(models)
    if len(networks) > 1:
        raise BoneageError(
            f"--backends: runs one model, not {len(networks)}; name one with --model"
        )
    (network,) = networks
    where = choose_device(device)
    arithmetic = choose_precision(precision, where)
    notes = []
    if "all" in backends:
        backends = []
        for name in (each for each in get_args(Backend) if each != "auto"):
            try:
                backends = [*backends, choose_backend(name, where, arithmetic)]
            except BoneageError as error:
                notes.append(str(error))
    # Checked now, so that a missing backend fails before the others are measured for minutes.
    for backend in backends:
        choose_backend(backend, where, arithmetic)
    bundle = network.load()
    eager = Predictor([bundle], device, "32", "torch")
    eager.check_age("--backends")
    (settings,) = eager.view_settings
    with radiographs(images, male, most=None) as (chosen, described):
        rendered = [
            eager.render(case.read())[settings]
            for case in track(chosen, description="render", unit="radiograph")
        ]
        sexes = np.array([float(bool(case.male)) for case in chosen], np.float32)
    views = {name: np.stack([each[name] for each in rendered]) for name in settings.names}

    def pixels(rows: np.ndarray) -> Rendered:
        return {name: array[rows] for name, array in views.items()}

    expected = eager.predict_pixels(pixels, sexes).months
    measured = Benchmark(
        environment_of(eager, seconds)
        | {"models": [*map(str, models)], "backend": ",".join(backends), "precision": arithmetic},
        throughput=[],
        notes=notes,
        images=described,
        differences=[],
    )
    for backend in backends:
        begun = time.perf_counter()
        predictor = Predictor([bundle], device, precision, backend)
        predictor.predict_pixels(pixels, sexes[:1])
        load = time.perf_counter() - begun
        apart = np.abs(predictor.predict_pixels(pixels, sexes).months - expected)
        assert measured.differences is not None
        measured.differences.append(
            {
                "backend": backend,
                "precision": predictor.precision,
                "images": len(apart),
                "mean_months": float(apart.mean()),
                "largest_months": float(apart.max()),
                "load_s": load,
            }
        )
        del predictor
        passes = benchmark_networks(
            [TimedNetwork(f"{network.name}, {backend}", lambda: bundle)],
            batch_sizes=batch_sizes,
            seconds=seconds / len(backends),
            device=device,
            precision=precision,
            backend=backend,
        )
        measured.throughput.extend(row | {"asked": backend} for row in passes.throughput)
        measured.notes.extend(passes.notes)
    return measured
