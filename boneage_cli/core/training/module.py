"""The Lightning module: training and validation steps of all model families."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from boneage_cli.core.config import Experiment
from boneage_cli.core.training.augmentation import Augmentation
from boneage_cli.core.training.batches import Batch
from boneage_cli.core.training.norm_statistics import measure_norms
from boneage_cli.core.training.optimisation import (
    build_optimiser,
    move_average,
    rate_schedule,
    with_and_without_decay,
)
from boneage_cli.core.training.running_means import RunningMeans
from boneage_cli.models.losses import build_loss, weighted_mean
from boneage_cli.models.network import Network, encoder_parameters, freeze_encoder, head_parameters

_MIDDLE_AGE = 120.0  # months
METRICS = ("loss", "mae", "squared_error", "age", "squared_age", "sex_error")


class BoneAgeModule(pl.LightningModule):
    """Trains a network to predict bone age in months, sex, or both.

    Args:
        network: The network, with pretrained weights loaded if they are wanted.
        experiment: The settings.
    """

    def __init__(self, network: Network, experiment: Experiment) -> None:
        super().__init__()
        self.network = network
        self.experiment = experiment
        self.settings = experiment.training
        self.loss = build_loss(self.settings.loss, **self.settings.loss_options)
        self.augmentation = Augmentation(experiment.augmentation)
        # Moving average of the weights; this copy is the network that is evaluated and saved.
        self.average = copy.deepcopy(network).requires_grad_(False) if self.settings.ema else None
        self.train_means, self.val_means = RunningMeans(METRICS), RunningMeans(METRICS)

    @property
    def evaluated_network(self) -> Network:
        """The network that is evaluated and saved: the averaged one if weights are averaged."""
        return self.average if self.average is not None else self.network

    @property
    def monitor(self) -> str:
        """Name of the validation metric that selects the best epoch; smaller is better."""
        return "val_mae" if "age" in self.experiment.model.targets else "val_sex_error"

    @property
    def plateau_monitor(self) -> str:
        """Name of the validation metric that the plateau schedule watches."""
        return "val_loss" if self.settings.plateau_monitor == "loss" else self.monitor

    def on_train_epoch_start(self) -> None:
        """Freezes or releases the encoder."""
        frozen = self.current_epoch < self.settings.frozen_epochs
        freeze_encoder(self.network, frozen)
        if self.average is not None:
            # Its encoder's batch normalisation is not re-estimated either.
            self.average.encoder_frozen = frozen
        plateau = self.settings.schedule == "plateau"
        if plateau and self.current_epoch == self.settings.frozen_epochs:
            # Runs exactly once in a resumed run, too: its rates are restored before this epoch.
            for group in self.trainer.optimizers[0].param_groups:
                if group["part"] == "head":
                    group["lr"] *= self.settings.head_fine_tune_rate

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the loss of an augmented batch, and its figures to display: loss, MAE, RMSE."""
        # The random state depends only on seed, epoch, batch and process, so a resumed run draws
        # the same numbers.
        place = (self.settings.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))
        batch = batch | self.augmentation({name: batch[name] for name in self.network.views})
        if self.settings.label_noise:
            noise = self.settings.label_noise * torch.randn_like(batch["target"])
            batch["target"] = batch["target"] + noise
        if self.settings.mixup:
            batch = self._mix(batch)
        return self._step(self.network, batch, self.train_means)

    def on_validation_epoch_start(self) -> None:
        """Re-estimates batch-normalisation statistics on training images without augmentation.

        Lightning calls this outside of autocast, so they are those of the network in fp32.
        """
        if self.settings.norm_images:
            measure_norms(self.evaluated_network, self._clean_batches(self.settings.norm_images))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluates one validation batch."""
        self._step(self.evaluated_network, batch, self.val_means)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Updates the averaged weights after each optimiser step."""
        last = batch_idx + 1 == self.trainer.num_training_batches
        # Lightning also steps after an epoch's last batch, even if fewer were accumulated.
        if self.average is None or ((batch_idx + 1) % self.settings.accumulate and not last):
            return
        move_average(self.average, self.network, self.settings.ema, self.global_step)

    def configure_optimizers(self) -> Any:
        """Returns the optimiser and its learning-rate schedule."""
        rate = self.settings.learning_rate
        groups = [
            *with_and_without_decay(
                encoder_parameters(self.network), rate * self.settings.fine_tune_rate, "encoder"
            ),
            *with_and_without_decay(head_parameters(self.network), rate, "head"),
        ]
        optimiser = build_optimiser(groups, self.settings)
        if self.settings.schedule == "plateau":
            plateau = ReduceLROnPlateau(
                optimiser,
                factor=self.settings.plateau_factor,
                patience=self.settings.plateau_patience,
                min_lr=self.settings.minimum_rate,
            )
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": plateau, "reduce_on_plateau": False},
            }
        steps = int(self.trainer.estimated_stepping_batches)
        factors = [rate_schedule(self.settings, steps, g["part"]) for g in optimiser.param_groups]
        schedule = LambdaLR(optimiser, factors)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Skips the plateau schedule, which Lightning would step only after the checkpoint."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def step_plateau(self, figures: Mapping[str, float]) -> None:
        """Steps the plateau schedule, which lowers the rate when its metric stops improving."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(figures[self.plateau_monitor])

    def epoch_metrics(self) -> dict[str, float]:
        """Computes the metrics of the finished epoch over all processes, and resets them.

        Returns:
            ``train_`` and ``val_`` loss; mae and rmse in months; r2, the explained share of the
            variance of ages; sex_error as a fraction.
        """
        figures: dict[str, float] = {}
        for split, means in (("train", self.train_means), ("val", self.val_means)):
            if means.update_called:
                figures |= {f"{split}_{name}": mean for name, mean in means.compute().items()}
            means.reset()
            squared, age, squared_age = (
                figures.pop(f"{split}_{name}", None)
                for name in ("squared_error", "age", "squared_age")
            )
            if squared is not None and age is not None and squared_age is not None:
                figures[f"{split}_rmse"] = squared**0.5
                variance = squared_age - age**2
                figures[f"{split}_r2"] = 1 - squared / variance if variance > 0 else math.nan
        return figures

    def _step(self, network: Network, batch: Batch, means: RunningMeans) -> dict[str, Tensor]:
        views = {name: batch[name] for name in network.views}
        outputs = network(views, batch["male"] if self.experiment.model.gender else None)
        weight = batch["weight"]
        loss = torch.zeros((), device=weight.device)
        figures: dict[str, Tensor] = {}
        if "age" in outputs:
            months, age = outputs["age"].float(), batch["age"]
            loss = loss + self.loss(months, batch["target"], weight)
            # Clamped at zero like the ages that predict returns.
            error = (months.detach().clamp(min=0) - age).abs()
            figures |= {"MAE": error.mean(), "RMSE": error.square().mean().sqrt()}
            # Centred, so that 32 bits suffice for the variance of ages.
            centred = age - _MIDDLE_AGE
            of_ages = {
                "mae": error,
                "squared_error": error.square(),
                "age": centred,
                "squared_age": centred.square(),
            }
            means.update(of_ages, weight)
        if "sex" in outputs:
            logit, male = outputs["sex"].float(), batch["male"]
            losses = nn.functional.binary_cross_entropy_with_logits(logit, male, reduction="none")
            loss = loss + weighted_mean(losses, weight)
            wrong = ((logit.detach() > 0) != (male > 0.5)).float()
            means.update({"sex_error": wrong}, weight)
        means.update({"loss": loss.detach()[None]}, weight.sum()[None])
        # Lightning divides "loss" by the number of batches whose gradients are accumulated.
        return {"loss": loss, "Loss": loss.detach(), **figures}

    def _clean_batches(self, images: int) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
        batches = self.trainer.train_dataloader.dataset  # type: ignore[union-attr]
        chance = np.random.default_rng((self.settings.seed, self.current_epoch))
        rows = chance.permutation(len(batches))[:images]
        for some in np.array_split(rows, -(-len(rows) // self.settings.batch_size)):
            batch = self.transfer_batch_to_device(batches[some.tolist()], self.device, 0)
            views = {name: batch[name] for name in self.network.views}
            yield views, batch["male"] if self.experiment.model.gender else None

    def _mix(self, batch: Batch) -> Batch:
        # Mixup (Zhang et al. 2018, arXiv:1710.09412) of images, ages and sexes.
        alpha = torch.tensor(self.settings.mixup)
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        order = torch.randperm(len(batch["age"]), device=batch["age"].device)
        mixed = dict(batch)
        for name in (*self.network.views, "age", "target", "male"):
            value = batch[name].float()
            mixed[name] = share * value + (1 - share) * value[order]
        return mixed
