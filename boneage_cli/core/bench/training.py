"""How fast networks train on this machine, and what a step of training spends its time on.

Everything runs through what ``train`` runs through: the data set's cache and loader, the module's
steps, the trainer. Epochs on real data and on synthetic tensors take turns in one training, so that
whatever else the machine does slows both alike. Where the time goes, and which operators take it,
is measured in passes of their own, since waiting for a GPU at every part would slow it down.
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
from boneage_cli.core.bench.environment import busy, where_and_when
from boneage_cli.core.bench.step_timing import (
    AUGMENTATION,
    PARTS,
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
from boneage_cli.datasets.drawn_hands import write_demo
from boneage_cli.errors import BoneageError, Interrupted
from boneage_cli.files import whole_file, writing
from boneage_cli.json_files import read_json, write_json
from boneage_cli.progress import track

TABLE, RECORD = "train-bench.csv", "train-bench.json"
COLUMNS = (
    *("model", "data", "images_per_s", "share_of_synthetic", "epoch_s", "epochs", "steps"),
    *("ms_per_step", *(f"{part}_ms" for part in PARTS)),
    *("gflop_per_image", "gflop_per_s", "peak_gflop_per_s", "share_of_peak"),
    *("train_images", "batch_size", "parameters", "pixels"),
    *("device", "precision", "hardware", "python", "torch", "boneage", "date"),
)

# How the time of a network is shared out; the trial and the operators take a few steps more.
_SPEED, _SPLIT = 0.7, 0.2
# Epochs of each kind that count: the least whatever the time, and so many where there is time for
# more steps, since many short ones beside each other tell more than a few long ones.
_LEAST, _ENOUGH = 3, 16
_TRIAL_STEPS = _OPERATOR_STEPS = 2
_DRAWN_BATCHES = 2


@dataclass(frozen=True)
class TrainingBenchmark:
    """What was measured.

    Attributes:
        about: Data, device, hardware, versions, date, and how long it was to take.
        rows: A row of ``COLUMNS`` per network and kind of data.
        networks: For each network that was measured its ``model``; the ``images_per_s`` of every
            epoch that counts, by kind; real data's by that of the synthetic ones beside it, as
            ``share_of_synthetic``; the ``shares`` of its time (see ``time_shares``); and the
            ``operators`` that take the most of it.
        notes: What could not be measured, and why.
    """

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    networks: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
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
    """Trains each network for a while, and measures.

    A network that does not fit into the GPU's memory is left out, with a note. Frozen epochs are
    left out too: what is measured is the training of the whole network.

    Args:
        chosen: Settings by the name of the network.
        data: The data set's folder; None for a few drawn hands.
        cache: Where decoded images are kept; None for the data set's folder.
        seconds: About how long to measure, shared by all; few steps are made whatever this says.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32``, ``bf16`` or ``fp16``; ``auto`` for what each network's settings say.

    Raises:
        BoneageError: The data set cannot be used, or the device is not there.
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
        "load_per_core": busy(),
        "peak": f"the fastest product of two square matrices of {MATRICES[place.type]} rows",
        **where_and_when(place),
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
                    # The next network needs the room.
                    alternating.release()
                    torch.cuda.empty_cache()
                where = where_and_when(place) | {"precision": precisions[name]}
                rows += [{"model": name, **row, **where} for row in found]
                networks.append({"model": name, **details})
    return TrainingBenchmark(about, rows, networks, notes)


def earlier_measurements(folder: Path) -> list[dict[str, Any]]:
    """What ``write_measurements`` left in a folder; nothing where it never wrote.

    Raises:
        BoneageError: Its file there is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return []
    refusal = BoneageError(f"{path}: not written by boneage bench --train; choose another --output")
    try:
        document = read_json(path)
    except BoneageError:
        raise refusal from None
    found = document.get("measurements") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and isinstance(each.get("rows"), list) for each in found
    ):
        raise refusal
    return found


def write_measurements(measurements: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes train-bench.csv, all rows, and train-bench.json, everything.

    Args:
        measurements: Earlier ones and the new one, as dictionaries.
        folder: Where; it is made where it is missing.

    Returns:
        Both files.

    Raises:
        BoneageError: The folder cannot be written.
    """
    rows = [row for each in measurements for row in each["rows"]]
    with writing(folder):
        with whole_file(folder / TABLE) as temporary:
            table = pd.DataFrame(rows, columns=COLUMNS)
            table.to_csv(temporary, index=False, float_format="%.5g")
        write_json({"measurements": list(measurements)}, folder / RECORD)
    return [folder / TABLE, folder / RECORD]


class _Epochs(pl.Callback):
    """Images and seconds of every epoch; a GPU is waited for at its ends alone."""

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
        """Images/s of the epochs of a kind but its first."""
        epochs = enumerate(zip(self.images, self.seconds, strict=True))
        return [images / seconds for epoch, (images, seconds) in epochs if kind_of(epoch) == kind][
            1:
        ]


class _Bench:
    """The measurement of one network.

    Args:
        data: The data set, set up.
        experiment: The settings.
        device: Where the network trains.
        bar: Counts the four parts of the measurement.
    """

    def __init__(
        self, data: AlternatingData, experiment: Experiment, device: torch.device, bar: tqdm[Any]
    ) -> None:
        self.data, self.experiment, self.device, self.bar = data, experiment, device, bar
        ages = data.train_manifest["boneage"]
        network = build_network(experiment, *mean_and_deviation(ages))
        self.parameters = sum(weight.numel() for weight in network.parameters())
        # Batch normalisation trains on two images at least.
        pair = synthetic_batch(data.batches["train"][[0, 0]], torch.device("cpu"))
        self.flops = flops_of_step(
            network,
            {view: pair[view] for view in network.views},
            pair["male"] if experiment.model.gender else None,
        ) / len(pair["age"])
        self.module: BoneAgeModule = make_module(network, experiment)

    def measure(self, seconds: float, peak: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """A row of ``COLUMNS`` for each kind, without those that tell where, and the details."""
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
        """Steps of a whole epoch."""
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
        """Milliseconds per step of each part, for each kind, after an epoch that does not count."""
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
            **{f"{part}_ms": split[part] for part in PARTS},
            "gflop_per_image": self.flops / 1e9,
            "gflop_per_s": self.flops * typical / 1e9,
            "peak_gflop_per_s": peak / 1e9,
            "share_of_peak": self.flops * typical / peak,
            "train_images": images,
            "batch_size": -(-images // self._longest),
            "parameters": self.parameters,
            "pixels": describe_shapes(self.data.renderer.shapes),
        }


def side_by_side(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """One by the other, for figures that were measured one after the other.

    Their median tells more than the quotient of both medians where the machine is slow for a while.
    """
    return [a / b for a, b in zip(some, others, strict=True)]


def share_out(steps: float, longest: int) -> tuple[int, int]:
    """Deals steps out to epochs of both kinds, as many rounds as fit, of which one does not count.

    Args:
        steps: How many there is time for.
        longest: Steps that an epoch can have.

    Returns:
        Steps per epoch, and rounds that count.
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
