"""Tests of learning rates, averaged weights and recomputed batch statistics."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.config import Experiment, TrainingSettings
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.norm_statistics import measure_norms
from boneage_cli.core.training.optimisation import (
    move_average,
    rate_schedule,
    with_and_without_decay,
)
from boneage_cli.core.training.run import resume, train
from boneage_cli.core.training.trainer import make_trainer
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
    # A finished run that is resumed trains no further, and its rates stay unchanged.
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
    # Earlier batch statistics are discarded.
    network({"hand": 255 - images[:5] // 4}, None)
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
    before = {name: value.clone() for name, value in module.evaluated_network.state_dict().items()}
    images = torch.randint(0, 256, (20, 1, 64, 56), dtype=torch.uint8)
    measure_norms(module.evaluated_network, [({"hand": images}, torch.zeros(20))])
    for name, value in module.evaluated_network.encoders.state_dict().items():
        assert torch.equal(value, before[f"encoders.{name}"]), name


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_measured_norms_end_in_the_bundle(
    ema: float, tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    # One epoch, after which a network that is not averaged would not be shown any more.
    experiment = changed(tiny, ema=ema, epochs=1)
    weights = [
        load_bundle(train(each, demo_data, runs=tmp_path).bundle).weights
        for each in (changed(experiment, norm_images=0), experiment)
    ]
    differing = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    measured = {name for name in weights[0] if name.endswith(("running_mean", "running_var"))}
    assert measured
    assert measured <= differing
    assert all("num_batches" in name for name in differing - measured)


def test_averaged_weights_follow_however_few_batches_an_epoch_has(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    # Four batches per epoch: the optimiser makes one step, after the last batch.
    experiment = changed(tiny, accumulate=8, ema=0.5, learning_rate=0.1, warmup_epochs=0)
    still = changed(experiment, learning_rate=1e-12)
    moved, start = (
        load_bundle(train(each, demo_data, runs=tmp_path).bundle).weights
        for each in (experiment, still)
    )
    name = next(name for name in start if name.startswith("encoders") and start[name].ndim == 4)
    assert (moved[name] - start[name]).abs().max() > 1e-3


@pytest.mark.parametrize(("steps", "moved"), [(0, 0.9), (10, 9 / 20), (10_000, 0.01)])
def test_an_average_moves_by_what_its_decay_leaves_and_a_young_one_follows_quickly(
    steps: int, moved: float
) -> None:
    average, network = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(network.weight)
    network.num_batches_tracked += 7
    move_average(average, network, 0.99, steps)
    assert average.weight.tolist() == pytest.approx([moved] * 3)
    assert network.weight.tolist() == [1, 1, 1]
    assert average.num_batches_tracked == 7


def factors(part: str = "encoder", **settings: object) -> list[float]:
    """Returns the learning-rate factors of 100 steps in ten epochs, and of the next step."""
    factor = rate_schedule(TrainingSettings(epochs=10, **settings), 100, part)
    return [factor(step) for step in range(101)]


def test_the_cosine_climbs_over_the_warm_up_and_falls_to_the_final_rate() -> None:
    rate = factors(schedule="cosine", warmup_epochs=2, final_rate=0.1)
    assert rate[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rate[20] == 1
    assert all(later < earlier for earlier, later in pairwise(rate[20:]))
    # Halfway down after half of the remaining steps.
    assert rate[60] == pytest.approx(0.55)
    assert rate[40] - rate[60] == pytest.approx(0.9 * 0.5 * 2**-0.5)
    assert rate[100] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("schedule", "peaks"),
    [
        ("triangular", [1.0, 1.0, 1.0]),
        ("triangular2", [1.0, 0.55, 0.325]),
        ("exp_range", [0.1 + 0.9 * 0.99**step for step in (10, 30, 50)]),
    ],
)
def test_a_cyclical_rate_goes_from_the_base_to_the_peak_and_back(
    schedule: str, peaks: list[float]
) -> None:
    rate = factors(
        schedule=schedule,
        learning_rate=1e-2,
        cyclic_base=1e-3,
        cyclic_steps=10,
        cyclic_gamma=0.99,
    )
    assert [rate[step] for step in (0, 20, 40, 60)] == pytest.approx([0.1] * 4)
    assert [rate[step] for step in (10, 30, 50)] == pytest.approx(peaks)
    if schedule == "triangular":
        assert rate[5] == rate[15] == pytest.approx(0.55)
        assert rate[2] == pytest.approx(0.1 + 0.9 * 0.2)


def test_the_new_layers_change_their_rate_at_the_first_step_after_the_frozen_epochs() -> None:
    settings = {"schedule": "constant", "frozen_epochs": 2, "head_fine_tune_rate": 0.1}
    assert factors("head", **settings) == pytest.approx([1.0] * 20 + [0.1] * 81)
    assert factors("encoder", **settings) == [1.0] * 101


def test_weights_decay_but_neither_biases_nor_scales_of_norms(tiny: Experiment) -> None:
    network = build_network(tiny, 120, 40)
    scalar = torch.nn.Parameter(torch.tensor(3.0))
    decaying, free = with_and_without_decay([*network.parameters(), scalar], 1e-3, "head")
    assert free["weight_decay"] == 0
    assert "weight_decay" not in decaying
    assert all(weight.ndim > 1 for weight in decaying["params"])
    assert all(weight.ndim <= 1 for weight in free["params"])
    assert any(weight is scalar for weight in free["params"])
    count = len([*network.parameters()]) + 1
    assert len(decaying["params"]) + len(free["params"]) == count


def test_the_encoder_learns_at_its_own_rate_and_everything_else_at_the_learning_rate(
    tiny: Experiment,
) -> None:
    network = build_network(tiny, 120, 40)
    experiment = changed(tiny, schedule="plateau", learning_rate=1e-2, fine_tune_rate=0.1)
    optimiser = BoneAgeModule(network, experiment).configure_optimizers()["optimizer"]
    rate = {id(w): group["lr"] for group in optimiser.param_groups for w in group["params"]}
    assert len(rate) == len([*network.parameters()])
    for name, weight in network.named_parameters():
        expected = 1e-3 if name.startswith("encoders.") else 1e-2
        assert rate[id(weight)] == pytest.approx(expected), name


def test_the_plateau_lowers_the_rate_after_its_patience_by_its_factor_to_its_least(
    tiny: Experiment,
) -> None:
    settings = {"plateau_patience": 2, "plateau_factor": 0.5, "minimum_rate": 2e-3}
    experiment = changed(tiny, schedule="plateau", learning_rate=1e-2, **settings)
    made = BoneAgeModule(build_network(tiny, 120, 40), experiment).configure_optimizers()
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rate = []
    for _ in range(11):
        schedule.step(5.0)
        rate.append(optimiser.param_groups[-1]["lr"])
    expected = [1e-2] * 3 + [5e-3] * 3 + [2.5e-3] * 3 + [2e-3] * 2
    assert rate == pytest.approx(expected)


def test_gradients_are_clipped_and_gathered_as_the_settings_say(tiny: Experiment) -> None:
    trainer = make_trainer(
        changed(tiny, gradient_clip=0.25, accumulate=3).training, devices="cpu", logger=False
    )
    assert trainer.gradient_clip_val == 0.25
    assert trainer.accumulate_grad_batches == 3
    without = make_trainer(changed(tiny, gradient_clip=0).training, devices="cpu", logger=False)
    assert not without.gradient_clip_val


def test_a_run_is_deterministic_only_if_it_is_asked_to_be(tiny: Experiment) -> None:
    for asked in (True, False):
        make_trainer(changed(tiny, deterministic=asked).training, devices="cpu", logger=False)
        assert torch.are_deterministic_algorithms_enabled() == asked


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_the_optimiser_and_its_settings_are_those_asked_for(
    name: str, kind: type, tiny: Experiment
) -> None:
    asked = {"optimiser": name, "weight_decay": 0.03, "betas": (0.8, 0.95), "schedule": "plateau"}
    module = BoneAgeModule(build_network(tiny, 120, 40), changed(tiny, **asked))
    optimiser = module.configure_optimizers()["optimizer"]
    assert type(optimiser) is kind
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0, 0.03}
    for group in optimiser.param_groups:
        assert group.get("betas", (group.get("momentum"), 0.95)) == (0.8, 0.95)
