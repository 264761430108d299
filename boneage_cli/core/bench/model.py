"""Benchmark of a model from files to ages: latency and its parts, throughput, memory.

Everything runs through ``Predictor``, as in predict, except the naive loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from boneage_cli.core.bench.benchmark import Benchmark
from boneage_cli.core.bench.environment import environment_of
from boneage_cli.core.bench.images import radiographs
from boneage_cli.core.bench.memory import peak_memory, peak_memory_of_children
from boneage_cli.core.bench.naive_loop import check_readable, naive_loop
from boneage_cli.core.bench.networks import benchmark_networks, trained
from boneage_cli.core.bench.timing import count_answered, measure_latency, rate_of
from boneage_cli.core.hardware import device_type
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.cpu_limits import usable_threads
from boneage_cli.progress import track

# Shares of the time; the rest is for the network's passes.
_LATENCY, _FILES, _REFERENCE = 0.25, 0.25, 0.15
# In less time, seconds, worker processes would hardly have started, so threads are timed instead.
_LEAST_FOR_PROCESSES = 10


def benchmark_model(
    models: Sequence[Path],
    images: Sequence[str] = (),
    *,
    male: bool = True,
    batch_sizes: Sequence[int] = (1, 4, 8, 16, 32),
    seconds: float = 60,
    reference: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
) -> Benchmark:
    """Runs the whole benchmark of one model, or of several that are averaged.

    Args:
        models: Bundles, run folders, or folders of a cross-validation.
        images: Radiographs, folders, lists or tables, of which the first ``MOST_IMAGES`` are
            used; none for drawn hands.
        male: Sex of children for whom no table gives it.
        batch_sizes: Batch sizes of the network's passes.
        seconds: Approximate duration; a minimum of repetitions is made in any case.
        reference: Whether to time the naive loop, too.
        batch_size: Batch size of prediction from files.
        workers: Number of threads, or of processes in long measurements; None for one per core.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.
        backend: The backend of the networks, see ``choose_backend``.

    Raises:
        BoneageError: A model or a radiograph cannot be read, or the device is not available.
    """
    shares = {"latency": _LATENCY, "files": _FILES}
    if reference:
        shares["reference"] = _REFERENCE
    begun = time.perf_counter()
    predictor = Predictor.load(models, device, precision, backend)
    about = environment_of(predictor, seconds) | {
        "models": [str(path) for path in models],
        "load_s": time.perf_counter() - begun,
    }
    memory = {"loaded": peak_memory()}
    if device_type(predictor.device) == "cuda":
        torch.cuda.reset_peak_memory_stats(predictor.device)
    bar: tqdm[Any] = track(total=len(shares), description="bench", unit="part")
    with bar, radiographs(images, male) as (chosen, described):
        if reference:
            check_readable(chosen)
        # Warms everything up, including the file cache, and fails if a file cannot be read.
        count_answered(
            predictor.predict_files(chosen, batch_size=batch_size, workers=workers, force=True)
        )
        latency = measure_latency(predictor, chosen, shares["latency"] * seconds)
        bar.update()
        files, memory["files"] = _from_files(
            predictor, chosen, shares["files"] * seconds, batch_size, workers
        )
        bar.update()
        if device_type(predictor.device) == "cuda":
            memory["gpu"] = torch.cuda.max_memory_allocated(predictor.device) / 1e6
        naive = None
        if reference:
            naive = naive_loop(predictor, chosen, shares["reference"] * seconds)
            naive["ratio"] = files["images_per_s"] / naive["images_per_s"]
            bar.update()
    left = (1 - sum(shares.values())) * seconds
    passes = benchmark_networks(
        trained(models),
        batch_sizes=batch_sizes,
        seconds=left,
        device=device,
        precision=precision,
        backend=backend,
    )
    return Benchmark(
        about=about,
        throughput=passes.throughput,
        latency=latency,
        images=described,
        files=files,
        memory=memory,
        reference=naive,
        notes=passes.notes,
    )


def _from_files(
    predictor: Predictor,
    chosen: Sequence[Case],
    seconds: float,
    batch_size: int,
    workers: int | None,
) -> tuple[dict[str, Any], float]:
    """Times prediction from files; returns the rates and the peak memory, MB."""
    workers = workers or usable_threads()
    processes = predictor.processes(workers) if seconds >= _LEAST_FOR_PROCESSES else 0
    memory = 0.0
    begun = time.perf_counter()

    def until_time_is_up() -> Iterator[Case]:
        for number, case in enumerate(cycle(chosen)):
            if number >= len(chosen) and time.perf_counter() >= begun + seconds:
                nonlocal memory
                memory = peak_memory_of_children()
                return
            yield case

    found = predictor.predict_files(
        until_time_is_up(),
        batch_size=batch_size,
        workers=workers,
        force=True,
        processes=bool(processes),
    )
    started = begun
    if processes:
        # Starting them takes a second, which is not counted: it is negligible for an archive.
        count_answered(islice(found, 1))
        started = time.perf_counter()
    figures = rate_of(count_answered(found), time.perf_counter() - started)
    about = {"batch_size": batch_size, "workers": workers, "processes": processes}
    return figures | about, peak_memory() + memory
