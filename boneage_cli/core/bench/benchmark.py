"""What a benchmark found, as tables, JSON and CSV have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_cli.core.bench.environment import PACKAGES, busy, where_and_when
from boneage_cli.core.bench.timing import TIMES, Latency
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.errors import BoneageError
from boneage_cli.files import check_writable, whole_file, writing
from boneage_cli.json_files import write_json

TABLE, RECORD = "bench.csv", "bench.json"
COLUMNS = (
    *("model", "batch_size", "passes", *TIMES, "ms_per_image", "images_per_s"),
    *("parameters", "pixels", "device", "backend", "precision", "hardware"),
    *("python", "torch", *PACKAGES, "boneage", "date"),
)


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


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written, or holds an earlier measurement.

    Raises:
        BoneageError: It is one of these.
    """
    check_writable(folder)
    if (folder / TABLE).exists():
        raise BoneageError(
            f"{folder}: holds a measurement ({TABLE}); choose another --output, and compare both "
            "with 'boneage bench report'"
        )


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


def environment_of(predictor: Predictor, seconds: float | None = None) -> dict[str, Any]:
    """Where, when and with what a predictor is timed.

    Args:
        predictor: What is timed.
        seconds: How long it is to take, for the record of a whole benchmark; None for one row.
    """
    return {
        **where_and_when(predictor.device),
        "backend": predictor.backend,
        "precision": predictor.precision,
        **({} if seconds is None else {"seconds": seconds, "load_per_core": busy()}),
    }
