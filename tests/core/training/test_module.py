"""Tests of training steps, and of the metrics and weights that are kept."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from boneage_cli.core.bundle import build_network, load_bundle
from boneage_cli.core.config import AugmentationSettings, Experiment
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.outcome import Run
from boneage_cli.core.training.run import train
from boneage_cli.core.training.trainer import make_trainer


def changed(experiment: Experiment, **training: object) -> Experiment:
    settings = experiment.training.model_copy(update=training)
    return experiment.model_copy(update={"training": settings})


def kept_row(run: Run) -> pd.Series:
    """Returns the metrics of the epoch whose weights a run kept."""
    return pd.read_csv(run.folder / "history.csv").iloc[run.kept_epoch - 1]


def test_averaged_weights_are_what_is_validated_and_kept(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    run = train(changed(tiny, ema=0.99, keep="last"), demo_data, runs=tmp_path)
    assert run.evaluation is not None
    assert kept_row(run)["val_mae"] == pytest.approx(run.evaluation.mae.value, abs=1e-3)
    state = torch.load(run.folder / "last.ckpt", weights_only=True)["state_dict"]
    weights = load_bundle(run.bundle).weights
    for name, weight in weights.items():
        assert torch.equal(weight, state[f"average.{name}"]), name
    name = next(name for name, weight in weights.items() if weight.ndim == 4)
    assert not torch.allclose(weights[name], state[f"network.{name}"], atol=1e-4)


def test_figures_of_the_log_are_those_of_the_model_that_is_kept(demo_run: Run) -> None:
    assert demo_run.evaluation is not None
    kept = kept_row(demo_run)
    assert kept["val_mae"] == pytest.approx(demo_run.evaluation.mae.value, abs=1e-3)
    assert kept["val_rmse"] == pytest.approx(demo_run.evaluation.rmse, abs=1e-3)


def test_a_model_of_sex_alone_keeps_the_epoch_with_the_fewest_errors(
    tiny: Experiment, demo_data: Path, tmp_path: Path
) -> None:
    model = tiny.model.model_copy(update={"targets": ("sex",), "gender": False})
    experiment = changed(tiny, epochs=4, learning_rate=3e-2)
    run = train(experiment.model_copy(update={"model": model}), demo_data, runs=tmp_path)
    errors = pd.read_csv(run.folder / "history.csv")["val_sex_error"]
    assert errors.nunique() > 1
    assert run.kept_epoch == errors.argmin() + 1
    assert run.sexes is not None
    assert 1 - kept_row(run)["val_sex_error"] == pytest.approx(run.sexes.accuracy.value, abs=1e-6)
    # At an accuracy of 0.5, swapped sexes would go unnoticed.
    assert run.sexes.accuracy.value != 0.5


def learnt_from(experiment: Experiment, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Returns the network's inputs and the loss's target in one training step."""
    plain = experiment.model_copy(update={"augmentation": AugmentationSettings(enabled=False)})
    module = BoneAgeModule(build_network(plain, 120, 40), plain)
    seen: dict[str, Tensor] = {}
    loss = module.loss

    def listen(months: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        seen["target"] = target
        return loss(months, target, weight)

    module.network.register_forward_pre_hook(
        lambda _, inputs: seen.update({**inputs[0], "male": inputs[1]})
    )
    module.loss = listen  # type: ignore[assignment]
    module.training_step(dict(batch), number)
    return seen


def batch_of(levels: Tensor) -> dict[str, Tensor]:
    """Returns uniform images whose gray level equals the age; the darker half are girls'."""
    hands = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 64, 56)
    return {
        "hand": hands,
        "age": levels.clone(),
        "target": levels.clone(),
        "male": (levels > levels.median()).float(),
        "weight": torch.ones(len(levels)),
    }


def test_noise_of_known_ages_is_as_strong_as_asked_for_and_other_in_each_step(
    tiny: Experiment,
) -> None:
    batch = batch_of(torch.full((400,), 100.0))
    noisy = changed(tiny, label_noise=6.0)
    first, second = (learnt_from(noisy, batch, number)["target"] - 100 for number in (0, 1))
    for noise in (first, second):
        assert noise.std().item() == pytest.approx(6, rel=0.15)
        assert abs(noise.mean().item()) < 1.2
    assert not torch.allclose(first, second, atol=1)
    assert torch.equal(learnt_from(tiny, batch, 0)["target"], batch["target"])


def test_mixup_mixes_ages_and_sexes_as_it_mixes_the_pixels(tiny: Experiment) -> None:
    batch = batch_of(torch.tensor([20.0, 60.0, 90.0, 130.0, 170.0, 240.0]))
    seen = learnt_from(changed(tiny, mixup=2.0), batch, 0)
    levels = seen["hand"][:, 0, 0, 0]
    torch.testing.assert_close(seen["target"], levels)
    assert not torch.allclose(levels, batch["age"], atol=1)
    # Mixing keeps the mean of the ages and the number of boys.
    assert levels.mean().item() == pytest.approx(batch["age"].mean().item(), abs=1e-3)
    share = seen["male"]
    assert ((share > 0) & (share < 1)).any()
    assert share.sum().item() == pytest.approx(batch["male"].sum().item(), abs=1e-5)


def test_every_epoch_shows_the_images_changed_in_another_way(tiny: Experiment) -> None:
    module = BoneAgeModule(build_network(tiny, 120, 40), tiny)
    module.trainer = make_trainer(tiny.training, devices="cpu", logger=False)
    batch = batch_of(torch.tensor([20.0, 60.0, 90.0, 130.0]))
    batch["hand"] = torch.randint(0, 256, (4, 1, 64, 56), dtype=torch.uint8)
    seen: list[Tensor] = []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["hand"]))
    for epoch in (0, 1, 0):
        module.trainer.fit_loop.epoch_progress.current.completed = epoch
        module.training_step(dict(batch), 0)
    first, other, again = seen
    assert (first - batch["hand"]).abs().mean() > 1
    assert (first - other).abs().mean() > 1
    assert torch.equal(first, again)


def test_options_of_the_loss_arrive(tiny: Experiment) -> None:
    experiment = changed(tiny, loss="huber", loss_options={"delta": 1.0})
    module = BoneAgeModule(build_network(tiny, 120, 40), experiment)
    found = module.loss(torch.tensor([100.0]), torch.tensor([90.0]), torch.ones(1))
    assert found.item() == pytest.approx(1.0 * (10 - 0.5))


def test_a_training_begins_with_the_weights_of_a_file(
    demo_run: Run, demo_data: Path, tiny: Experiment, tmp_path: Path
) -> None:
    model = tiny.model.model_copy(update={"weights": str(demo_run.bundle)})
    still = changed(tiny, learning_rate=1e-12, epochs=1, warmup_epochs=0)
    run = train(still.model_copy(update={"model": model}), demo_data, runs=tmp_path)
    expected, found = (load_bundle(path).weights for path in (demo_run.bundle, run.bundle))
    kernels = [name for name, weight in expected.items() if weight.ndim == 4]
    assert kernels
    for name in kernels:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
