"""Promises about learning rates and about what is measured before a network is judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.norm_statistics import measure_norms
from boneage_cli.core.training.run import resume, train
from boneage_cli.models.network import Network


def changed(experiment: Experiment, **training: object) -> Experiment:
    settings = experiment.training.model_copy(update=training)
    return experiment.model_copy(update={"training": settings})


def rates(folder: Path) -> list[float]:
    return pd.read_csv(folder / "history.csv")["learning_rate"].tolist()


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_after_the_frozen_epochs_the_new_layers_learn_at_their_own_rate(
    schedule: str, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    experiment = changed(
        tiny,
        epochs=4,
        schedule=schedule,
        plateau_patience=10,
        frozen_epochs=2,
        head_fine_tune_rate=0.1,
    )
    run = train(experiment, demo_data, runs=tmp_path)
    rate = tiny.training.learning_rate
    assert rates(run.folder) == pytest.approx([rate, rate, rate / 10, rate / 10])
    # A resumed run has nothing left to train, and its rates stay what they were.
    resume(run.folder)
    assert rates(run.folder) == pytest.approx([rate, rate, rate / 10, rate / 10])


@pytest.mark.parametrize("monitor", ["mae", "loss"])
def test_plateau_watches_the_figure_that_is_asked_for(
    monitor: str,
    tiny: Experiment,
    demo_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched: list[float] = []
    step = ReduceLROnPlateau.step

    def listen(self: ReduceLROnPlateau, figure: float) -> None:
        watched.append(figure)
        step(self, figure)

    monkeypatch.setattr(ReduceLROnPlateau, "step", listen)
    experiment = changed(tiny, schedule="plateau", plateau_monitor=monitor, loss="mse")
    run = train(experiment, demo_data, runs=tmp_path)
    history = pd.read_csv(run.folder / "history.csv")
    assert watched == pytest.approx(history[f"val_{monitor}"].tolist())


def test_batch_normalisation_is_measured_over_all_images_at_once() -> None:
    torch.manual_seed(0)
    network = Network(("hand",), backbone="small_cnn", channels=(4,), normalisation="unit")
    images = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
    batches = [({"hand": part}, None) for part in images.split(20)]
    network.train()
    network.heads.eval()
    modes = [module.training for module in network.modules()]
    measure_norms(network, batches)
    assert [module.training for module in network.modules()] == modes

    first = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    convolution = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        maps = convolution(images.float() / 255)
    assert torch.allclose(first.running_mean, maps.mean((0, 2, 3)), atol=1e-4)
    assert first.momentum == 0.1


def test_a_frozen_encoder_keeps_the_statistics_that_it_came_with() -> None:
    network = Network(("hand",), backbone="small_cnn", channels=(4,), hidden=(8, 8), norm=True)
    network.encoder_frozen = True
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8)
    measure_norms(network, [({"hand": images}, None)])
    moved = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert not any(name.startswith("encoders") for name in moved)


def test_an_average_of_weights_keeps_its_frozen_statistics_as_well(tiny: Experiment) -> None:
    module = BoneAgeModule(build_network(tiny, 120, 40), changed(tiny, ema=0.9, frozen_epochs=1))
    module.on_train_epoch_start()
    before = {name: value.clone() for name, value in module.best_guess.state_dict().items()}
    images = torch.randint(0, 256, (20, 1, 64, 56), dtype=torch.uint8)
    measure_norms(module.best_guess, [({"hand": images}, torch.zeros(20))])
    for name, value in module.best_guess.encoders.state_dict().items():
        assert torch.equal(value, before[f"encoders.{name}"]), name


def test_measured_norms_end_in_the_bundle(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    plain = changed(tiny, norm_images=0)
    weights = [
        load_bundle(train(experiment, demo_data, runs=tmp_path).bundle).weights
        for experiment in (plain, tiny)
    ]
    differing = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert differing
    assert all(name.endswith(("running_mean", "running_var")) for name in differing) or np.any(
        ["num_batches" in name for name in differing]
    )


def test_averaged_weights_follow_however_few_batches_an_epoch_has(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    # Four batches an epoch: the optimiser steps once in each, after the last.
    experiment = changed(tiny, accumulate=8, ema=0.5, learning_rate=0.1, warmup_epochs=0)
    still = changed(experiment, learning_rate=1e-12)
    moved, start = (
        load_bundle(train(each, demo_data, runs=tmp_path).bundle).weights
        for each in (experiment, still)
    )
    name = next(name for name in start if name.startswith("encoders") and start[name].ndim == 4)
    assert (moved[name] - start[name]).abs().max() > 1e-3
