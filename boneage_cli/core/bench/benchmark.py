"""The results of a benchmark, and their JSON and CSV files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_cli.core.bench.environment import PACKAGES
from boneage_cli.core.bench.timing import TIMES, Latency
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.files import check_writable, explaining_write_errors
from boneage_cli.json_files import write_json

BENCH_TABLE, BENCH_RECORD = "bench.csv", "bench.json"
COLUMNS = (
    *("model", "batch_size", "passes", *TIMES, "ms_per_image", "images_per_s"),
    *("parameters", "pixels", "device", "backend", "precision", "hardware"),
    *("python", "torch", *PACKAGES, "boneage", "date"),
)


@dataclass(frozen=True)
class Benchmark:
    """The results of a benchmark.

    Attributes:
        about: Models, device, hardware, versions, date, and the requested duration.
        throughput: A row of ``COLUMNS`` per network and batch size.
        latency: Times of single radiographs; None if only networks were timed, as the following.
        images: Description of the radiographs.
        files: Prediction from files: ``images``, ``seconds``, ``images_per_s``, and its settings.
        memory: MB: ``loaded`` after loading the model, ``files`` the peak while predicting, and
            ``gpu`` the peak on the GPU, if there is one.
        reference: The naive loop, as ``files``, with ``ratio``, files' images/s divided by its.
        differences: For each backend ``images``, the differences of ages from torch in full
            precision, ``mean_months`` and ``largest_months``, and ``load_s``, seconds until the
            first prediction.
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
        """Returns the content of bench.json."""
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


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written, or holds an earlier measurement.

    Raises:
        BoneageError: The folder is refused.
    """
    check_writable(folder)
    if (folder / BENCH_TABLE).exists():
        raise BoneageError(
            f"{folder}: holds a measurement ({BENCH_TABLE}); choose another --output, and compare "
            "both with 'boneage bench report'"
        )


def write_benchmark(benchmark: Benchmark, folder: Path) -> list[Path]:
    """Writes bench.csv, the rows of throughput, and bench.json, everything.

    Args:
        benchmark: The results.
        folder: The output folder; it is made if it is missing.

    Returns:
        Both files.

    Raises:
        BoneageError: The folder cannot be written.
    """
    table = pd.DataFrame(benchmark.throughput, columns=COLUMNS)
    with explaining_write_errors(folder):
        write_csv(table, folder / BENCH_TABLE, "%.4f")
        write_json(benchmark.to_dict(), folder / BENCH_RECORD)
    return [folder / BENCH_TABLE, folder / BENCH_RECORD]
