"""Timing of predictions: statistics, and the parts of the latency from file to bone age."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from boneage_cli.core.hardware import device_type
from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.errors import BoneageError

TIMES = ("mean_ms", "std_ms", "min_ms", "max_ms", "median_ms")
LATENCY_PARTS = ("read", "preprocess", "network", "rest")
PERCENTILES = (50, 95, 99)

# Warm-up repetitions that are not counted, and the fewest that are timed.
WARM_UP, _LEAST = 2, 3


@dataclass(frozen=True)
class Latency:
    """Latency of single radiographs from file to bone age.

    Attributes:
        parts: Milliseconds of each of ``LATENCY_PARTS``, (repetitions,) each.
    """

    parts: dict[str, np.ndarray]

    @property
    def total(self) -> np.ndarray:
        """Milliseconds from file to bone age, (repetitions,)."""
        return np.sum(list(self.parts.values()), axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Returns repetitions, and ``mean_ms``, ``share`` and percentiles of parts and total.

        The means of the parts add up to that of the total; percentiles do not.
        """
        whole = float(self.total.mean())
        rows = {
            name: {
                "mean_ms": float(times.mean()),
                "share": float(times.mean()) / whole,
                **percentiles(times),
            }
            for name, times in [*self.parts.items(), ("total", self.total)]
        }
        return {"repetitions": len(self.total), "parts": rows}


def summarise(milliseconds: Sequence[float]) -> dict[str, float]:
    """Returns ``TIMES``: mean, sample standard deviation (0 for one), min, max and median."""
    spread = statistics.stdev(milliseconds) if len(milliseconds) > 1 else 0.0
    values = (
        *(statistics.fmean(milliseconds), spread),
        *(min(milliseconds), max(milliseconds), statistics.median(milliseconds)),
    )
    return dict(zip(TIMES, values, strict=True))


def throughput_metrics(milliseconds: Sequence[float], batch_size: int) -> dict[str, float]:
    """Returns ``TIMES`` of passes over a batch, and from the mean ms per image and images/s.

    Args:
        milliseconds: Duration of each pass.
        batch_size: Images per pass.
    """
    times = summarise(milliseconds)
    per_image = times["mean_ms"] / batch_size
    return {**times, "ms_per_image": per_image, "images_per_s": 1000 / per_image}


def percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    """Returns ``p50_ms`` and so on, with linear interpolation."""
    found = np.percentile(milliseconds, PERCENTILES)
    return {f"p{rank}_ms": float(value) for rank, value in zip(PERCENTILES, found, strict=True)}


def split(marks: Mapping[str, float]) -> dict[str, float]:
    """Divides one radiograph's time among ``LATENCY_PARTS``.

    Args:
        marks: Seconds at which ``begun``, ``reading``, ``read``, ``rendered``, ``passing``,
            ``passed`` and ``ended`` were reached.

    Returns:
        Milliseconds, which add up to the time from begun to ended.
    """
    parts = {
        "read": marks["read"] - marks["reading"],
        "preprocess": marks["rendered"] - marks["read"],
        "network": marks["passed"] - marks["passing"],
    }
    parts["rest"] = marks["ended"] - marks["begun"] - sum(parts.values())
    return {name: 1000 * seconds for name, seconds in parts.items()}


def measure_latency(predictor: Predictor, chosen: Sequence[Case], seconds: float) -> Latency:
    """Times radiographs one at a time, repeatedly, for about ``seconds``."""
    source = cycle(chosen)
    parts = [time_one(predictor, next(source)) for _ in repetitions(seconds)][WARM_UP:]
    return Latency({name: np.array([each[name] for each in parts]) for name in LATENCY_PARTS})


def time_one(predictor: Predictor, case: Case) -> dict[str, float]:
    """Returns the milliseconds of ``LATENCY_PARTS`` for one radiograph."""
    marks: dict[str, float] = {}

    def mark(name: str) -> None:
        if device_type(predictor.device) == "cuda":
            torch.cuda.synchronize(predictor.device)
        marks[name] = time.perf_counter()

    # Only while one radiograph is timed, because each mark waits for the GPU.
    before, predictor.mark = predictor.mark, mark
    try:
        mark("begun")
        count_answered(predictor.predict_files([case], batch_size=1, workers=1, force=True))
        mark("ended")
    finally:
        predictor.mark = before
    return split(marks)


def repetitions(seconds: float) -> Iterator[None]:
    """Yields until the time is up, at least for the warm-up and ``_LEAST`` repetitions."""
    end = time.perf_counter() + seconds
    count = 0
    while count < WARM_UP + _LEAST or time.perf_counter() < end:
        yield
        count += 1


def count_answered(predictions: Iterator[Prediction]) -> int:
    """Counts predictions; raises an error if one failed, which would distort the measurement."""
    count = 0
    for prediction in predictions:
        if prediction.complaint is not None:
            raise BoneageError(prediction.complaint)
        count += 1
    return count


def rate_of(images: int, seconds: float) -> dict[str, Any]:
    """Returns ``images``, ``seconds`` and ``images_per_s``."""
    return {"images": images, "seconds": seconds, "images_per_s": images / seconds}
