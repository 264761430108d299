"""Measures what docs/performance.md says, as Markdown tables and a JSON file.

    python tests/benchmarks/measure.py --images FOLDER --data DATASET [--only help,shell,…]

Each measurement is shown with its baseline, measured in the same run. Nothing else should run at
the same time. ``--quick`` uses few radiographs and repetitions, to test the script.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from boneage_cli.core.hardware import describe_hardware
from boneage_cli.cpu_limits import usable_threads

BONEAGE = [sys.executable, "-m", "boneage_cli"]


@dataclass(frozen=True)
class Figure:
    """One row of a table.

    Attributes:
        what: Name of the measurement.
        value: Its value.
        unit: Its unit.
        against: Name and value of the baseline.
        ratio: Value divided by that of the baseline, or the speed-up; None without a baseline.
        aim: Target of the ratio, or of the value.
    """

    what: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    aim: str = ""


@dataclass(frozen=True)
class Given:
    """Inputs of the measurements.

    Attributes:
        images: Radiographs, as for ``boneage predict``.
        data: A data set's folder.
        model: A bundle; None for the package's own model.
        quick: Whether to use few radiographs and repetitions.
    """

    images: Path
    data: Path
    model: Path | None
    quick: bool

    @property
    def options(self) -> list[str]:
        """Options for predict: the model, and a sex for radiographs of unknown sex."""
        # --force, because the model refuses drawings.
        return ["--sex", "F", "--force", *(["--model", str(self.model)] if self.model else [])]

    def cases(self, count: int) -> list[Any]:
        """Returns ``count`` radiographs, repeating them if necessary."""
        from boneage_cli.core.prediction.inputs import cases

        return list(islice(cycle(cases([str(self.images)], False)), count))


def of_help(given: Given) -> list[Figure]:
    """Measures ``boneage --help``; the baseline is importing its libraries."""
    least = _seconds([sys.executable, "-c", "import typer, rich"], given.quick)
    found = _seconds([*BONEAGE, "--help"], given.quick)
    return [
        Figure(
            "`boneage --help`",
            1000 * found,
            "ms",
            f"`import typer, rich`: {1000 * least:.0f} ms",
            found / least,
            "≤ 2.5",
        )
    ]


def of_shell(given: Given) -> list[Figure]:
    """Measures predicting one radiograph from the shell, including start-up."""
    path = given.cases(1)[0].path
    command = [*BONEAGE, "predict", path, *given.options]
    _run(command)
    return [Figure("`boneage predict hand.png`", _seconds(command, given.quick), "s", aim="≤ 3")]


def of_predict(given: Given) -> list[Figure]:
    """Measures predicting from files; baselines are each step alone and the naive loop."""
    import numpy as np

    from boneage_cli.core.bench.naive_loop import naive_loop
    from boneage_cli.core.prediction.predictor import Predictor
    from boneage_cli.core.runs import SHIPPED_MODEL
    from boneage_cli.imaging.reading import read_radiograph
    from boneage_cli.threads import worker_threads

    predictor = Predictor.load([given.model or SHIPPED_MODEL])
    few, count = given.cases(8 if given.quick else 150), 8 if given.quick else 1500
    some = list(islice(cycle(few), count))
    list(predictor.predict_files(few, force=True))

    def alone(work: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, list[Any]]:
        """Returns the seconds for ``count`` calls on all cores, and the results of the inputs."""
        with worker_threads() as pool:
            begun = time.perf_counter()
            results = list(pool.map(work, islice(cycle(inputs), count)))
            return time.perf_counter() - begun, results[: len(inputs)]

    reading, radiographs = alone(lambda case: read_radiograph(case.path, aspect=case.aspect), few)
    locating, located = alone(predictor.locate, radiographs)
    renderers = predictor.renderers.values()
    cutting, _ = alone(
        lambda pair: [renderer.render(*pair) for renderer in renderers],
        list(zip(radiographs, located, strict=True)),
    )
    (settings,) = predictor.renderers
    rendered = [predictor.render(radiograph)[settings] for radiograph in radiographs]
    views = {name: np.stack([each[name] for each in rendered]) for name in settings.names}
    rows = np.arange(count) % len(few)
    begun = time.perf_counter()
    predictor.predict_pixels(
        lambda batch: {name: array[rows[batch]] for name, array in views.items()},
        np.zeros(count, np.float32),
    )
    network = time.perf_counter() - begun
    found = predictor.predict_files(some, force=True, processes=True)
    # After the first result the worker processes have started.
    next(found)
    begun = time.perf_counter()
    assert len(list(found)) == count - 1
    together = (time.perf_counter() - begun) * count / (count - 1)
    naive = naive_loop(predictor, few, 0.5 if given.quick else 20)["images_per_s"]
    parts = {
        "reading": reading,
        "key points": locating,
        "cutting out": cutting,
        "age network": network,
    }
    whole = sum(parts.values())
    return [
        *(
            Figure(
                f"{name} alone",
                1000 * seconds / count,
                "ms a radiograph",
                "all parts",
                seconds / whole,
            )
            for name, seconds in parts.items()
        ),
        Figure(
            f"predict, {count} radiographs",
            1000 * together / count,
            "ms a radiograph",
            f"the parts, one after the other: {1000 * whole / count:.1f} ms",
            together / whole,
            "≤ 1.15",
        ),
        Figure(
            "the same",
            count / together,
            "radiographs/s",
            f"naive loop: {naive:.0f}/s",
            count / together / naive,
            "≥ 8",
        ),
    ]


def of_backends(given: Given) -> list[Figure]:
    """Measures how the default backend differs from torch in full precision."""
    import numpy as np

    from boneage_cli.core.bench.backends import benchmark_backends
    from boneage_cli.core.prediction.predictor import Predictor
    from boneage_cli.core.runs import SHIPPED_MODEL

    names = ["torch", "auto"]
    measured = benchmark_backends(
        [given.model or SHIPPED_MODEL],
        names,
        [str(given.images)],
        male=False,
        batch_sizes=[1],
        seconds=0.5 if given.quick else 20,
    )
    assert measured.differences is not None
    rates = {row["asked"]: row["images_per_s"] for row in measured.throughput}
    apart = next(row for row in measured.differences if row["backend"] == "auto")
    cases = given.cases(apart["images"])
    eager, chosen = (
        np.array(
            [
                found.months
                for found in Predictor.load(
                    [given.model or SHIPPED_MODEL], "auto", precision, backend
                ).predict_files(cases, force=True)
            ],
            float,
        )
        for precision, backend in (("32", "torch"), ("auto", "auto"))
    )
    whole = np.abs(eager - chosen)
    return [
        Figure(
            "the age network, one image at a time",
            rates["auto"],
            "images/s",
            f"eager torch: {rates['torch']:.0f}/s",
            rates["auto"] / rates["torch"],
        ),
        Figure(
            f"its months apart from eager fp32, mean of {apart['images']}",
            apart["mean_months"],
            "months",
        ),
        Figure("the same, largest", apart["largest_months"], "months"),
        Figure(
            f"predict apart from all in eager fp32, mean of {len(whole)}",
            float(whole.mean()),
            "months",
            aim="≤ 0.05",
        ),
        Figure("the same, largest", float(whole.max()), "months", aim="≤ 0.3"),
    ]


def of_memory(given: Given) -> list[Figure]:
    """Measures the peak memory for many paths; the baseline has a tenth as many."""
    few, many = (8, 80) if given.quick else (1000, 10000)
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (few, many):
            paths = "\n".join(str(Path(case.path).absolute()) for case in given.cases(count))
            listed = Path(folder, f"{count}.txt")
            listed.write_text(paths, encoding="utf-8")
            command = [*BONEAGE, "predict", str(listed), *given.options]
            peaks.append(_peak_memory([*command, "--output", str(Path(folder, "ages.csv"))]))
    return [
        Figure(
            f"memory of predict, {many:,} paths",
            peaks[1],
            "MB",
            f"{few:,} paths: {peaks[0]:.0f} MB",
            peaks[1] / peaks[0],
            "≤ 1.1",
        )
    ]


def of_workers(given: Given) -> list[Figure]:
    """Measures commands on many files on all cores; the baseline is one worker on one core."""
    cores = usable_threads()
    figures = []
    for name in WORKS:
        alone, together = (_timed_in_child(name, given, workers) for workers in (1, cores))
        figures.append(
            Figure(
                f"{name}, {cores} workers",
                together,
                "s",
                f"one worker: {alone:.1f} s",
                alone / together,
                "≥ 1.7",
            )
        )
    return figures


def _check_data(given: Given, folder: Path, workers: int) -> None:
    from boneage_cli.datasets.audit.audit import audit

    audit(given.data, workers=workers)


def _clahe(given: Given, folder: Path, workers: int) -> None:
    from boneage_cli.datasets.offline_clahe import clahe_files

    clahe_files([given.images], folder, workers=workers)


def _locate_rois(given: Given, folder: Path, workers: int) -> None:
    from boneage_cli.core.prediction.cases import manifest_cases
    from boneage_cli.core.regions.roi_settings import RoiSettings
    from boneage_cli.core.regions.rois import locate_rois
    from boneage_cli.datasets.manifest import read_manifest

    cases = islice(manifest_cases(read_manifest(given.data)), 8 if given.quick else 2400)
    locate_rois(cases, folder, RoiSettings(), workers=workers, processes=True)


WORKS: dict[str, Callable[[Given, Path, int], None]] = {
    "check-data": _check_data,
    "clahe": _clahe,
    "locate-rois": _locate_rois,
}


def _timed_in_child(name: str, given: Given, workers: int) -> float:
    """Times one of ``WORKS`` in a process limited to ``workers`` threads, in seconds.

    Without the limit, the network of a single worker would use all cores.
    """
    arguments = ["--images", str(given.images), "--data", str(given.data), "--time", name]
    found = subprocess.run(
        [sys.executable, __file__, *arguments, *(["--quick"] if given.quick else [])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(workers)},
    )
    return float(found.stdout)


def _time(name: str, given: Given) -> float:
    """Times the second run of one of ``WORKS``, with files in the page cache, in seconds."""
    seconds = 0.0
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            WORKS[name](given, Path(folder, "out"), usable_threads())
            seconds = time.perf_counter() - begun
    return seconds


def of_cache(given: Given) -> list[Figure]:
    """Measures how long training waits for its first batch, without and with a cache."""
    from boneage_cli.core.experiment_file import load_experiment
    from boneage_cli.core.training.datamodule import BoneAgeData

    experiment = load_experiment(overrides=["preprocessing.height=160", "preprocessing.width=136"])
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            data = BoneAgeData(given.data, experiment, Path(folder))
            data.setup()
            next(iter(data.train_dataloader()))
            seconds.append(time.perf_counter() - begun)
        images = len(data.train_manifest) + len(data.validation_manifest)
        held = sum(file.stat().st_size for file in Path(folder).glob("*.npy"))
    return [
        Figure(f"building the cache of {images:,} radiographs", seconds[0], "s"),
        Figure("first batch from then on", seconds[1], "s", aim="≤ 5"),
        Figure(
            "size of the cache",
            held,
            "bytes",
            f"n × h × w: {images * 160 * 136:,}",
            held / (images * 160 * 136),
        ),
    ]


PARTS: dict[str, Callable[[Given], list[Figure]]] = {
    "help": of_help,
    "shell": of_shell,
    "predict": of_predict,
    "backends": of_backends,
    "memory": of_memory,
    "workers": of_workers,
    "cache": of_cache,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Figure]]:
    """Measures, prints the tables, and writes the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="radiographs to predict")
    parser.add_argument("--data", type=Path, required=True, help="a data set's folder")
    parser.add_argument("--model", type=Path, help="a bundle; the package's by default")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--output", type=Path, default=Path("performance.json"))
    parser.add_argument("--quick", action="store_true", help="few radiographs and repetitions")
    parser.add_argument("--time", choices=WORKS, help="only print the seconds of this")
    options = parser.parse_args(arguments)
    given = Given(options.images, options.data, options.model, options.quick)
    if options.time:
        print(_time(options.time, given))
        return {}
    load = os.getloadavg()[0]
    names = options.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--only {unknown[0]}: take {', '.join(PARTS)}")
    found: dict[str, list[Figure]] = {}
    for name in names:
        found[name] = PARTS[name](given)
        print("\n".join(_table(name, found[name])), flush=True)
    record = {
        "command": shlex.join(sys.argv),
        "date": f"{date.today()}",
        "hardware": describe_hardware("cpu"),
        "versions": {name: version(name) for name in ("boneage", "torch", "openvino")},
        "load_before": load,
        "parts": {name: [asdict(figure) for figure in rows] for name, rows in found.items()},
    }
    options.output.write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    return found


def _table(name: str, figures: Iterable[Figure]) -> list[str]:
    head = ["", f"### {name}", "", "| | | against | ratio | aim |", "|---|---|---|---|---|"]
    return head + [
        f"| {each.what} | {_digits(each.value)} {each.unit} | {each.against} | "
        f"{'' if each.ratio is None else f'{each.ratio:.2f}'} | {each.aim} |"
        for each in figures
    ]


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _seconds(command: Sequence[str], quick: bool) -> float:
    """Returns the median time of a command in seconds, after one warm-up run."""
    times = []
    for _ in range(2 if quick else 11):
        begun = time.perf_counter()
        _run(command)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _peak_memory(command: Sequence[str]) -> float:
    """Returns the summed peak memory of a command and its child processes, MB (Linux only).

    Shared memory is counted for each process.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        peaks: dict[int, int] = {}
        while process.poll() is None:
            family = {process.pid}
            # Parents have lower process ids than their children.
            for status in sorted(Path("/proc").glob("[0-9]*/status"), key=_number):
                with suppress(OSError, TypeError):
                    text = status.read_text()
                    if _number(status) in family or _field(text, "PPid") in family:
                        family.add(_number(status))
                        peaks[_number(status)] = _field(text, "VmHWM")
            time.sleep(0.1)
    assert process.returncode == 0
    return sum(peaks.values()) * 1024 / 1e6


def _number(status: Path) -> int:
    return int(status.parent.name)


def _field(status: str, name: str) -> int:
    """Reads a number from a process's status file; TypeError if the process has ended."""
    return int(re.search(rf"{name}:\s+(\d+)", status)[1])  # type: ignore[index]


if __name__ == "__main__":
    main()
