"""How fast a model is on this machine, and how fast several networks are beside one another.

Measured are the time from a file to its answer and where that time goes, the network's passes by
batch size, radiographs per second from files, memory, and how far what runs a network moves its
months. Everything runs through ``Predictor``, as it does in predict; the naive loop alone goes its
own way.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from boneage_cli.core.bench.circumstances import PACKAGES, busy, where_and_when
from boneage_cli.core.bench.images import radiographs
from boneage_cli.core.bench.naive_loop import naive_loop
from boneage_cli.core.bench.timing import (
    TIMES,
    WARM_UP,
    Latency,
    Stopwatch,
    count_answered,
    measure_latency,
    rate_of,
    repetitions,
    throughput_figures,
)
from boneage_cli.core.bundle import Bundle, build_network, load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.hardware import (
    choose_device,
    choose_precision,
    device_type,
)
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import bundles_at, write_json
from boneage_cli.core.runtime import Backend, choose_backend
from boneage_cli.core.views import Rendered, describe_shapes, shapes_of
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file, writing
from boneage_cli.imaging.reading import read_radiograph
from boneage_cli.progress import track
from boneage_cli.threads import usable_threads

TABLE, RECORD = "bench.csv", "bench.json"
COLUMNS = (
    *("model", "batch_size", "passes", *TIMES, "ms_per_image", "images_per_s"),
    *("parameters", "pixels", "device", "backend", "precision", "hardware"),
    *("python", "torch", *PACKAGES, "boneage", "date"),
)
# How the time is shared out; what is left goes to the network's passes.
_LATENCY, _FILES, _REFERENCE = 0.25, 0.25, 0.15
# In less time, seconds, processes would hardly have begun; then threads are timed.
_LEAST_FOR_PROCESSES = 10
AGES = (127.3, 41.2)
"""Mean and deviation of RSNA's, months, for networks that are not trained: they change no time."""


@dataclass(frozen=True)
class TimedNetwork:
    """A network whose passes are timed.

    Attributes:
        name: What tables call it.
        load: Makes it, when its turn comes: many networks at once may not fit into memory.
    """

    name: str
    load: Callable[[], Bundle]


@dataclass(frozen=True)
class Benchmark:
    """What was measured.

    Attributes:
        about: Models, device, hardware, versions, date, and how long it was to take.
        throughput: A row of ``COLUMNS`` per network and batch size.
        latency: Of one radiograph at a time; None where networks alone were timed, as below.
        images: Which radiographs were read.
        files: Radiographs from files: ``images``, ``seconds``, ``images_per_s``, and how.
        memory: MB: ``loaded`` once the model is there, ``files`` at most while it predicts, and
            ``gpu`` at most on the GPU, where it runs on one.
        reference: The naive loop, as ``files``, with ``ratio``, files' images/s by its.
        differences: Of each backend, ``images`` and by how many months they differ from torch in
            full precision: ``mean_months`` and ``largest_months``; and ``load_s``, seconds until
            the first months.
        notes: What could not be measured, and why.
    """

    about: dict[str, Any]
    throughput: list[dict[str, Any]]
    latency: Latency | None = None
    images: str | None = None
    files: dict[str, Any] | None = None
    memory: dict[str, float] | None = None
    reference: dict[str, Any] | None = None
    differences: list[dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "about": self.about,
            "images": self.images,
            "latency": self.latency.to_dict() if self.latency else None,
            "throughput": self.throughput,
            "files": self.files,
            "memory_mb": self.memory,
            "reference": self.reference,
            "differences": self.differences,
            "notes": self.notes,
        }


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


def parse_backends(text: str) -> list[str]:
    """Names of backends from text such as ``torch,openvino``, each once; or ``all``.

    Raises:
        BoneageError: One of them is unknown.
    """
    known = ["all", *get_args(Backend)]
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names or not set(names) <= set(known):
        raise BoneageError(f"--backends {text}: write some of {', '.join(known)}")
    return names


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
    # What trains networks takes seconds to import, and nothing else here needs it.
    from boneage_cli.core.training.sweep import combinations

    vary = [f"model.backbone={backbones}"] if backbones else []
    found = {}
    for each in combinations(configs, vary, ["model.weights=none"], tell):
        # Better a mistake now than after minutes of measuring the others.
        build_network(each.experiment, *AGES)
        name = each.experiment.name if configs else str(each.experiment.model.backbone)
        found[name] = each.experiment
    return found


def untrained(chosen: Mapping[str, Experiment]) -> list[TimedNetwork]:
    """Networks with random weights: speed does not depend on them.

    Args:
        chosen: The settings of each, by its name.
    """
    return [TimedNetwork(name, partial(_untrained, each)) for name, each in chosen.items()]


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
    """Measures all there is about one model, or several that are averaged.

    Args:
        models: Bundles, run folders, or folders of a cross-validation.
        images: Radiographs, folders, lists or tables, of which the first ``MOST_IMAGES`` are
            taken; none for drawn hands.
        male: The sex of the children that no table names.
        batch_sizes: Of the passes of the network.
        seconds: About how long to measure; few repetitions are made whatever this says.
        reference: Whether to time the naive loop, too.
        batch_size: Of prediction from files.
        workers: Threads that read; None for one per core.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.
        backend: What runs the networks, see ``choose_backend``.

    Raises:
        BoneageError: A model or a radiograph cannot be read, or the device is not there.
    """
    shares = {"latency": _LATENCY, "files": _FILES}
    if reference:
        shares["reference"] = _REFERENCE
    begun = time.perf_counter()
    predictor = cast(Stopwatch, Stopwatch.load(models, device, precision, backend))
    about = _about(predictor, seconds) | {
        "models": [str(path) for path in models],
        "load_s": time.perf_counter() - begun,
    }
    memory = {"loaded": _peak_memory()}
    if device_type(predictor.device) == "cuda":
        torch.cuda.reset_peak_memory_stats(predictor.device)
    bar: tqdm[Any] = track(total=len(shares), description="bench", unit="part")
    with bar, radiographs(images, male) as (chosen, described):
        # Warms everything up, files included, and finds those that cannot be read.
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
            about = about or _about(predictor, seconds) | {"models": [n.name for n in networks]}
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
    """Runs one model in several ways: how fast, and how far from torch in full precision.

    Args:
        models: A bundle or run folder, one.
        backends: What is to run it, see ``choose_backend``; ``all`` for what can run here.
        images: Radiographs to compare the months of, see ``benchmark_model``; all of them are.
        male: The sex of the children that no table names.
        batch_sizes: Of the passes of the network.
        seconds: About how long to measure, shared by all.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32``, ``mixed``, ``bf16`` or ``fp16``.

    Raises:
        BoneageError: There are several models, one or a radiograph cannot be read, or a backend is
            not there.
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
    # Better a mistake now than after minutes of measuring the others.
    for backend in backends:
        choose_backend(backend, where, arithmetic)
    bundle = network.load()
    eager = Predictor([bundle], device, "32", "torch")
    eager.check_age("--backends")
    (settings,) = eager.view_settings
    with radiographs(images, male, most=None) as (chosen, described):
        rendered = [
            eager.render(read_radiograph(case.path, aspect=case.aspect))[settings]
            for case in track(chosen, description="render", unit="radiograph")
        ]
        sexes = np.array([float(bool(case.male)) for case in chosen], np.float32)
    views = {name: np.stack([each[name] for each in rendered]) for name in settings.names}

    def pixels(rows: np.ndarray) -> Rendered:
        return {name: array[rows] for name, array in views.items()}

    expected = eager.predict_pixels(pixels, sexes).months
    measured = Benchmark(
        _about(eager, seconds)
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


def write_benchmark(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Writes bench.csv, the rows of throughput, and bench.json, everything.

    Args:
        benchmark: What to write.
        folder: Where; it is made where it is missing.

    Returns:
        Both files.

    Raises:
        BoneageError: The folder cannot be written.
    """
    table = pd.DataFrame(benchmark.throughput, columns=COLUMNS)
    with writing(folder):
        with whole_file(folder / TABLE) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        write_json(benchmark.to_dict(), folder / RECORD)
    return [folder / TABLE, folder / RECORD]


def _from_files(
    predictor: Predictor,
    chosen: Sequence[Case],
    seconds: float,
    batch_size: int,
    workers: int | None,
) -> tuple[dict[str, Any], float]:
    """What it came to, and the most memory that this took, MB."""
    workers = workers or usable_threads()
    processes = predictor.processes(workers) if seconds >= _LEAST_FOR_PROCESSES else 0
    memory = 0.0
    begun = time.perf_counter()

    def until_time_is_up() -> Iterator[Case]:
        for number, case in enumerate(cycle(chosen)):
            if number >= len(chosen) and time.perf_counter() >= begun + seconds:
                nonlocal memory
                memory = _peak_memory_of_children()
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
        # That they begin takes a second, which an archive does not notice.
        count_answered(islice(found, 1))
        started = time.perf_counter()
    figures = rate_of(count_answered(found), time.perf_counter() - started)
    about = {"batch_size": batch_size, "workers": workers, "processes": processes}
    return figures | about, _peak_memory() + memory


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
    about = _about(predictor)
    return {
        "model": name,
        "batch_size": batch_size,
        "passes": len(milliseconds),
        **throughput_figures(milliseconds, batch_size),
        "parameters": weights,
        "pixels": describe_shapes(shapes_of(bundle.experiment)),
        **{column: about[column] for column in COLUMNS if column in about},
    }


def _about(predictor: Predictor, seconds: float | None = None) -> dict[str, Any]:
    return {
        **where_and_when(predictor.device),
        "backend": predictor.backend,
        "precision": predictor.precision,
        **({} if seconds is None else {"seconds": seconds, "load_per_core": busy()}),
    }


def _untrained(experiment: Experiment) -> Bundle:
    weights = build_network(experiment, *AGES).state_dict()
    return Bundle(experiment, *AGES, weights, path=Path(experiment.name))


def _peak_memory() -> float:
    """The most memory that this process has had so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _peak_memory_of_children() -> float:
    """The same of those that this one started and that run, MB in all; known of Linux alone."""
    peak = 0.0
    for child in active_children():
        # What getrusage tells of children includes this process, which they were split off from.
        with suppress(OSError):
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peak += int(found[1]) * 1024 / 1e6 if found else 0.0
    return peak
