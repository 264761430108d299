"""Callbacks of a run: files written after each epoch, early stopping, and the progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from tqdm import tqdm

from boneage_cli.core.bundle import Bundle, save_bundle
from boneage_cli.core.runs import BUNDLE, CHECKPOINT, RESULT
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.csv_files import write_csv
from boneage_cli.errors import BoneageError
from boneage_cli.progress import track

EpochRow = dict[str, float]


class RunRecorder(pl.Callback):
    """Updates history, best bundle and checkpoint after each epoch, and stops early.

    Args:
        folder: The run folder.
        untrained: Bundle without weights and metrics, which are filled in at each save.
        report: Called with the row of each epoch in the main process.
    """

    def __init__(
        self,
        folder: Path,
        untrained: Bundle,
        report: Callable[[EpochRow], None] = lambda row: None,
    ) -> None:
        self.folder = folder
        self.untrained = untrained
        self.report = report
        self.history: list[EpochRow] = []
        self.best = math.inf
        self.best_epoch = 0
        self.kept_epoch = 0
        self._started = 0.0
        self._trained = 0.0
        self._rate = 0.0
        # Rows of this epoch for batches.csv.
        self._batches: list[dict[str, float]] = []
        self._images = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that a resumed run needs."""
        return {
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "kept_epoch": self.kept_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state of a checkpoint."""
        self.history = list(state["history"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.kept_epoch = state["kept_epoch"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Writes the last checkpoint's bundle if the run was killed before it was written."""
        assert isinstance(module, BoneAgeModule)
        finished = (self.folder / RESULT).exists()
        if trainer.is_global_zero and self.history and not finished:
            self._write_bundles(module, self.history[-1])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gets the run folder from the main process; stops if patience is already exhausted."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder)))
        assert isinstance(module, BoneAgeModule)
        trainer.should_stop = self._patience_ends(module)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Starts the epoch's timer."""
        self._started = time.perf_counter()
        self._batches, self._images = [], 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stores this step's learning rate; at the epoch's end the next step's is already set."""
        self._rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Records the metrics of every ``log_every``-th batch; reading them waits for the GPU."""
        assert isinstance(module, BoneAgeModule)
        every = module.settings.log_every
        self._images += len(batch["age"]) * trainer.world_size
        if not every or (batch_idx + 1) % every or not trainer.is_global_zero:
            return
        figures = {name.lower(): float(outputs[name]) for name in outputs if name != "loss"}
        seconds = time.perf_counter() - self._started
        self._batches.append(
            {
                "epoch": trainer.current_epoch + 1,
                "batch": batch_idx + 1,
                **figures,
                "learning_rate": self._rate,
                "seconds": seconds,
                "images_per_second": self._images / seconds,
            }
        )

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Notes the end of the epoch's training."""
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Writes the epoch's history, checkpoint and bundles."""
        assert isinstance(module, BoneAgeModule)
        row = self._row(trainer, module)
        if not math.isfinite(row["train_loss"]) or not math.isfinite(row[module.monitor]):
            kept = f"; the model so far stays in {BUNDLE}" if self.kept_epoch else ""
            raise BoneageError(
                f"{self.folder}: the loss is no longer a number in epoch {int(row['epoch'])}; "
                f"lower training.learning_rate or set training.gradient_clip{kept}"
            )
        self.history.append(row)
        epoch = int(row["epoch"])
        if row[module.monitor] < self.best:
            self.best, self.best_epoch = row[module.monitor], epoch
        self.kept_epoch = epoch if module.settings.keep == "last" else self.best_epoch
        module.step_plateau(row)
        if self._patience_ends(module):
            trainer.should_stop = True
        if trainer.is_global_zero:
            self._write(trainer, module, row)
            self.report(row)
        # All processes take part in saving and wait until it is done; then the main one renames.
        unfinished = self.folder / f".{CHECKPOINT}"
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(self.folder / CHECKPOINT)
            # After the checkpoint; otherwise a run killed in between would resume before an epoch
            # whose bundle is already written.
            self._write_bundles(module, row)

    def _patience_ends(self, module: BoneAgeModule) -> bool:
        patience = module.settings.patience
        return bool(patience) and len(self.history) - self.best_epoch >= patience

    def _row(self, trainer: pl.Trainer, module: BoneAgeModule) -> EpochRow:
        figures = module.epoch_metrics()
        batches = trainer.train_dataloader
        return {
            "epoch": trainer.current_epoch + 1,
            **figures,
            "learning_rate": self._rate,
            "seconds": time.perf_counter() - self._started,
            "images_per_second": len(batches.dataset)  # type: ignore[union-attr]
            / (self._trained - self._started),
        }

    def _write(self, trainer: pl.Trainer, module: BoneAgeModule, row: EpochRow) -> None:
        epoch = int(row["epoch"])
        if self._batches:
            self._write_batches(epoch)
        history = pd.DataFrame(self.history).astype({"epoch": int})
        write_csv(history, self.folder / "history.csv")
        for logger in trainer.loggers:
            logger.log_metrics(row, step=epoch)

    def _write_bundles(self, module: BoneAgeModule, row: EpochRow) -> None:
        epoch, every = int(row["epoch"]), module.settings.keep_every
        kept = [self.folder / BUNDLE] if self.kept_epoch == epoch else []
        if every and epoch % every == 0:
            kept.append(self.folder / f"epoch-{epoch:03}.safetensors")
        if kept:
            figures = {name: value for name, value in row.items() if name.startswith("val_")}
            bundle = replace(
                self.untrained,
                weights=module.evaluated_network.state_dict(),
                metrics={"epoch": epoch, **figures},
            )
            for path in kept:
                save_bundle(bundle, path)

    def _write_batches(self, epoch: int) -> None:
        path = self.folder / "batches.csv"
        table = pd.DataFrame(self._batches)
        if path.exists():
            earlier = pd.read_csv(path)
            # An interrupted epoch is trained again, so its earlier rows are dropped.
            table = pd.concat([earlier[earlier["epoch"] < epoch], table], ignore_index=True)
        write_csv(table, path)


# They would leave the bar no room; "loss" is Lightning's copy of "Loss".
_NOT_IN_BAR = ("loss", "Loss", "RMSE")


class TrainingProgress(pl.Callback):
    """Progress bar over the images of each epoch, with the metrics of a recent batch."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Opens the bar."""
        if trainer.is_global_zero:
            self._bar = track(
                description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=len(trainer.train_dataloader.dataset),  # type: ignore[union-attr]
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advances the bar."""
        if self._bar is None or self._bar.disable:
            return
        assert isinstance(module, BoneAgeModule)
        # Reading the metrics waits for the GPU, so it is not done at every batch.
        if batch_idx % 10 == 0:
            figures = {
                name: f"{float(value):.2f}"
                for name, value in outputs.items()
                if name not in _NOT_IN_BAR
            }
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update(len(batch["age"]) * trainer.world_size)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Closes the bar, before the metrics of the epoch are printed."""
        if self._bar is not None:
            self._bar.close()
