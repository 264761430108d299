"""Benchmark of training: images/s, and the parts and operators of a training step.

It uses the same code as ``train``: the data set's cache and loader, the module's steps, the
trainer. Epochs on real data and on synthetic tensors alternate in one training, so that other load
on the machine slows both equally. The times of parts and operators are measured in separate epochs,
because synchronising a GPU at every part slows the training.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from tqdm import tqdm

from boneage_cli.core.bench.arithmetic import (
    DTYPES,
    MATRICES,
    flops_of_step,
    peak_arithmetic,
    wait_for,
)
from boneage_cli.core.bench.environment import environment, load_per_core
from boneage_cli.core.bench.step_timing import (
    AUGMENTATION,
    STEP_PARTS,
    Operators,
    StepSplit,
    time_shares,
)
from boneage_cli.core.bench.synthetic_data import KINDS, AlternatingData, kind_of, synthetic_batch
from boneage_cli.core.bundle import build_network
from boneage_cli.core.config import Experiment
from boneage_cli.core.hardware import choose_device, choose_precision
from boneage_cli.core.training.datamodule import mean_and_deviation
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.trainer import make_module, make_trainer
from boneage_cli.core.views import describe_shapes
from boneage_cli.csv_files import write_csv
from boneage_cli.datasets.drawn_hands import write_demo
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.files import explaining_write_errors
from boneage_cli.json_files import read_json, write_json
from boneage_cli.progress import track

TRAINING_TABLE, TRAINING_RECORD = "train-bench.csv", "train-bench.json"
COLUMNS = (
    *("model", "data", "images_per_s", "share_of_synthetic", "epoch_s", "epochs", "steps"),
    *("ms_per_step", *(f"{part}_ms" for part in STEP_PARTS)),
    *("gflop_per_image", "gflop_per_s", "peak_gflop_per_s", "share_of_peak"),
    *("train_images", "batch_size", "parameters", "pixels"),
    *("device", "precision", "hardware", "python", "torch", "boneage", "date"),
)

# Shares of a network's time; the trial and the operators take a few steps more.
_SPEED, _SPLIT = 0.7, 0.2
# Timed epochs of each kind: the minimum, and the number from which epochs become longer instead,
# because many short neighbouring epochs can be compared better than a few long ones.
_LEAST, _ENOUGH = 3, 16
_TRIAL_STEPS = _OPERATOR_STEPS = 2
_DRAWN_BATCHES = 2


@dataclass(frozen=True)
class TrainingBenchmark:
    """The results of a training benchmark.

    Attributes:
        about: Data, device, hardware, versions, date, and the requested duration.
        rows: A row of ``COLUMNS`` per network and kind of data.
        networks: For each network its ``model``; the ``images_per_s`` of every timed epoch, by
            kind; ``share_of_synthetic``, the speed of real epochs divided by that of neighbouring
            synthetic ones; the ``shares`` of its time (see ``time_shares``); and the slowest
            ``operators`` with their shares.
        notes: What could not be measured, and why.
    """

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    networks: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the results as JSON types."""
        return {
            "about": self.about,
            "rows": self.rows,
            "networks": self.networks,
            "notes": self.notes,
        }


def benchmark_training(
    chosen: Mapping[str, Experiment],
    data: Path | None = None,
    *,
    cache: Path | None = None,
    seconds: float = 60,
    device: str = "auto",
    precision: str = "auto",
) -> TrainingBenchmark:
    """Times the training of each network.

    A network that does not fit into the GPU's memory is left out, with a note. There are no epochs
    with a frozen encoder: the training of the whole network is measured.

    Args:
        chosen: Settings by the name of the network.
        data: The data set's folder; None for a few drawn hands.
        cache: Folder of the image cache; None for the data set's folder.
        seconds: Approximate duration, shared by all; a minimum of steps is made in any case.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32``, ``bf16`` or ``fp16``; ``auto`` for that of each network's settings.

    Raises:
        BoneageError: The data set cannot be used, or the device is not available.
        Interrupted: The user stopped it.
    """
    place = torch.device(choose_device(device))
    prepared = {name: _prepared(each, precision) for name, each in chosen.items()}
    precisions = {
        name: choose_precision(each.training.precision, place, training=True)
        for name, each in prepared.items()
    }
    about: dict[str, Any] = {
        "models": [*prepared],
        "seconds": seconds,
        "load_per_core": load_per_core(),
        "peak": f"the fastest product of two square matrices of {MATRICES[place.type]} rows",
        **environment(place),
    }
    rows: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    notes: list[str] = []
    with _data_set(data, prepared.values()) as folder:
        about["data"] = str(folder) if data else "drawn hands"
        peaks = {
            each: peak_arithmetic(place, DTYPES[each]) for each in sorted({*precisions.values()})
        }
        bar: tqdm[Any] = track(total=4 * len(prepared), description="bench", unit="part")
        with bar:
            for name, experiment in prepared.items():
                alternating = AlternatingData(folder, experiment, cache)
                alternating.setup()
                alternating.read_once()
                bench = _Bench(alternating, experiment, place, bar)
                try:
                    found, details = bench.measure(seconds / len(prepared), peaks[precisions[name]])
                except torch.OutOfMemoryError:
                    size = experiment.training.batch_size
                    notes.append(f"{name}, batches of {size}: does not fit into memory")
                    continue
                finally:
                    # Frees memory for the next network.
                    alternating.release()
                    torch.cuda.empty_cache()
                where = environment(place) | {"precision": precisions[name]}
                rows += [{"model": name, **row, **where} for row in found]
                networks.append({"model": name, **details})
    return TrainingBenchmark(about, rows, networks, notes)


def earlier_measurements(folder: Path) -> list[dict[str, Any]]:
    """Reads what ``write_measurements`` wrote to a folder; empty if there is nothing.

    Raises:
        BoneageError: The file is damaged.
    """
    path = folder / TRAINING_RECORD
    if not path.exists():
        return []
    refusal = BoneageError(f"{path}: not written by boneage bench --train; choose another --output")
    try:
        document = read_json(path)
    except BoneageError:
        raise refusal from None
    found = document.get("measurements")
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and isinstance(each.get("rows"), list) for each in found
    ):
        raise refusal
    return found


def write_measurements(measurements: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes train-bench.csv, all rows, and train-bench.json, everything.

    Args:
        measurements: Earlier ones and the new one, as dictionaries.
        folder: The output folder; it is made if it is missing.

    Returns:
        Both files.

    Raises:
        BoneageError: The folder cannot be written.
    """
    rows = [row for each in measurements for row in each["rows"]]
    with explaining_write_errors(folder):
        write_csv(pd.DataFrame(rows, columns=COLUMNS), folder / TRAINING_TABLE, "%.5g")
        write_json({"measurements": list(measurements)}, folder / TRAINING_RECORD)
    return [folder / TRAINING_TABLE, folder / TRAINING_RECORD]


class _Epochs(pl.Callback):
    """Images and seconds of every epoch; a GPU is synchronised only at its start and end."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.images: list[int] = []
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.images.append(0)
        wait_for(self.device)
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        self.images[-1] += len(batch["age"])

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        wait_for(self.device)
        self.seconds.append(time.perf_counter() - self._begun)

    def rates(self, kind: str) -> list[float]:
        """Returns the images/s of all epochs of a kind except the first."""
        epochs = enumerate(zip(self.images, self.seconds, strict=True))
        return [images / seconds for epoch, (images, seconds) in epochs if kind_of(epoch) == kind][
            1:
        ]


class _Bench:
    """The measurement of one network.

    Args:
        data: The data set, after ``setup``.
        experiment: The settings.
        device: The training device.
        bar: Progress bar of the four parts of the measurement.
    """

    def __init__(
        self, data: AlternatingData, experiment: Experiment, device: torch.device, bar: tqdm[Any]
    ) -> None:
        self.data, self.experiment, self.device, self.bar = data, experiment, device, bar
        ages = data.train_manifest["boneage"]
        network = build_network(experiment, *mean_and_deviation(ages))
        self.parameters = sum(weight.numel() for weight in network.parameters())
        # Batch normalisation needs at least two images in training.
        pair = synthetic_batch(data.batches["train"][[0, 0]], torch.device("cpu"))
        self.flops = flops_of_step(
            network,
            {view: pair[view] for view in network.views},
            pair["male"] if experiment.model.gender else None,
        ) / len(pair["age"])
        self.module: BoneAgeModule = make_module(network, experiment)

    def measure(self, seconds: float, peak: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Returns a row of ``COLUMNS`` per kind, except those of the environment, and details."""
        trial = _Epochs(self.device)
        self._train(_TRIAL_STEPS, epochs=len(KINDS), callbacks=[trial])
        step = trial.seconds[-1] / min(_TRIAL_STEPS, self._longest)
        steps, rounds = share_out(_SPEED * seconds / step, self._longest)
        epochs = _Epochs(self.device)
        self._train(steps, epochs=len(KINDS) * (rounds + 1), callbacks=[epochs])
        split = self._split(max(1, int(_SPLIT * seconds / step / (2 * len(KINDS)))))
        operators = Operators(self.device)
        self._train(_OPERATOR_STEPS, epochs=len(KINDS), callbacks=[operators])
        rates = {kind: epochs.rates(kind) for kind in KINDS}
        rows = [self._row(kind, rates, split[kind], steps, peak) for kind in KINDS]
        images = rows[0]["batch_size"]
        details = {
            "images_per_s": rates,
            "share_of_synthetic": side_by_side(rates["real"], rates["synthetic"]),
            "shares": time_shares(split["real"], images * self.flops, peak),
            "operators": operators.shares(),
        }
        return rows, details

    @property
    def _longest(self) -> int:
        """Number of steps of a whole epoch."""
        size = self.experiment.training.batch_size
        return -(-len(self.data.batches["train"]) // size)

    def _train(self, steps: int, *, epochs: int, **options: Any) -> None:
        settings = self.experiment.training.model_copy(update={"epochs": epochs})
        trainer = make_trainer(
            settings,
            devices="1" if self.device.type == "cuda" else "cpu",
            logger=False,
            limit_train_batches=min(steps, self._longest),
            limit_val_batches=0,
            reload_dataloaders_every_n_epochs=1,
            **options,
        )
        try:
            trainer.fit(self.module, datamodule=self.data)
        except (SystemExit, KeyboardInterrupt):
            # Lightning turns an interrupt into an exit.
            raise Interrupted("interrupted; nothing was written") from None
        self.bar.update()

    def _split(self, steps: int) -> dict[str, dict[str, float]]:
        """Measures ms per step of each part, for each kind, after an untimed epoch of each."""
        split = StepSplit(self.device)
        hooks = (
            self.module.augmentation.register_forward_pre_hook(
                lambda *_: split.start(AUGMENTATION)
            ),
            self.module.augmentation.register_forward_hook(lambda *_: split.stop(AUGMENTATION)),
        )
        self._train(steps, epochs=2 * len(KINDS), profiler=split)
        for hook in hooks:
            hook.remove()
        steps = min(steps, self._longest)
        return {
            kind_of(epoch): {part: 1000 * seconds / steps for part, seconds in times.items()}
            for epoch, times in enumerate(split.epochs)
            if epoch >= len(KINDS)
        }

    def _row(
        self,
        kind: str,
        rates: Mapping[str, Sequence[float]],
        split: Mapping[str, float],
        steps: int,
        peak: float,
    ) -> dict[str, Any]:
        typical = statistics.median(rates[kind])
        images = len(self.data.batches["train"])
        return {
            "data": kind,
            "images_per_s": typical,
            "share_of_synthetic": statistics.median(side_by_side(rates[kind], rates["synthetic"])),
            "epoch_s": images / typical,
            "epochs": len(rates[kind]),
            "steps": len(rates[kind]) * steps,
            "ms_per_step": 1000 * images / self._longest / typical,
            **{f"{part}_ms": split[part] for part in STEP_PARTS},
            "gflop_per_image": self.flops / 1e9,
            "gflop_per_s": self.flops * typical / 1e9,
            "peak_gflop_per_s": peak / 1e9,
            "share_of_peak": self.flops * typical / peak,
            "train_images": images,
            "batch_size": -(-images // self._longest),
            "parameters": self.parameters,
            "pixels": describe_shapes(self.data.renderer.settings.shapes),
        }


def side_by_side(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """Returns element-wise ratios of paired measurements.

    If the machine is slow for a while, their median is more reliable than the ratio of medians.
    """
    return [a / b for a, b in zip(some, others, strict=True)]


def share_out(steps: float, longest: int) -> tuple[int, int]:
    """Divides steps into rounds of one epoch of each kind, plus one untimed round.

    Args:
        steps: The number of steps that there is time for.
        longest: The most steps of an epoch.

    Returns:
        Steps per epoch, and the number of timed rounds.
    """
    each = min(longest, max(1, int(steps / (len(KINDS) * (_ENOUGH + 1)))))
    return each, max(_LEAST, int(steps / (len(KINDS) * each)) - 1)


def _prepared(experiment: Experiment, precision: str) -> Experiment:
    changes: dict[str, Any] = {"frozen_epochs": 0}
    if precision != "auto":
        changes["precision"] = precision
    training = experiment.training.model_copy(update=changes)
    return experiment.model_copy(update={"training": training})


@contextmanager
def _data_set(data: Path | None, chosen: Any) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with TemporaryDirectory(prefix="boneage-bench-") as folder:
        largest = max(each.training.batch_size for each in chosen)
        write_demo(Path(folder), train=_DRAWN_BATCHES * largest, validation=2, test=0)
        yield Path(folder)
