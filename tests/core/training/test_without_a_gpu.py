"""Tests, on machines without a GPU, that training steps do not mix devices or wait for the GPU.

Tensors of torch's fake mode have a shape and a device but no values. Operations on them raise the
errors of a GPU where tensors of the CPU and of the GPU meet, and where the program would have to
wait for a value.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from boneage_cli.core.bundle import build_network
from boneage_cli.core.config import AugmentationSettings, Experiment
from boneage_cli.core.experiment_file import load_experiment
from boneage_cli.core.training.batches import Batch
from boneage_cli.core.training.module import BoneAgeModule
from boneage_cli.core.training.norm_statistics import measure_norms
from boneage_cli.core.training.optimisation import build_optimiser, move_average
from boneage_cli.core.views import shapes_of

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.toml"))
GPU = torch.device("cuda", 0)


def on_gpu(module: BoneAgeModule) -> BoneAgeModule:
    """Replaces all weights by fake ones on the GPU; call it in fake mode."""
    moved: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)
            trained = isinstance(tensor, nn.Parameter)
            moved[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
        return moved[id(tensor)]

    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({name: fake(t) for name, t in tensors.items() if t is not None})
    for means in (module.train_means, module.val_means):
        means.totals = fake(means.totals)
    return module


def batch_on_gpu(module: BoneAgeModule) -> Batch:
    shapes = shapes_of(module.experiment)
    views = {
        name: torch.empty(4, 1, *shapes[name], dtype=torch.uint8, device=GPU)
        for name in module.network.views
    }
    labels = {name: torch.ones(4, device=GPU) for name in ("male", "age", "target", "weight")}
    return views | labels


def step(experiment: Experiment) -> None:
    """Takes a step of training, without its backward pass, and one of validation."""
    network = build_network(experiment, 127.0, 41.0)
    module = BoneAgeModule(network, experiment)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu(module)
        batch = batch_on_gpu(module)
        views = {name: batch[name] for name in network.views}
        changed = batch | module.augmentation(views)
        figures = module._step(network, changed, module.train_means)
        assert {figure.device for figure in figures.values()} == {GPU}
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        build_optimiser([{"params": weights, "lr": 1e-3}], experiment.training).step()
        if module.average is not None:
            move_average(module.average, network, experiment.training.ema, 1)
        male = batch["male"] if experiment.model.gender else None
        measure_norms(module.evaluated_network, [(views, male), (views, male)])
        module.eval()
        module._step(module.evaluated_network, batch, module.val_means)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_step_of_each_recipe_runs_on_a_gpu_without_waiting_for_it(path: Path) -> None:
    experiment = load_experiment(path)
    model = experiment.model.model_copy(update={"weights": "none"})
    # kornia looks at the widths of the blur, which it draws on the CPU; here they have no values.
    augmentation = experiment.augmentation.model_copy(update={"blur": 0.0})
    step(experiment.model_copy(update={"model": model, "augmentation": augmentation}))


def test_each_augmentation_runs_on_a_gpu(tiny: Experiment) -> None:
    every = AugmentationSettings(
        flip=0.5, noise=0.1, aspect=0.1, shear=5, gamma=0.2, contrast=0.2, brightness=0.2
    )
    step(tiny.model_copy(update={"augmentation": every}))


def test_what_a_gpu_would_have_to_wait_for_is_noticed() -> None:
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty((), device=GPU).item()
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"cuda:0.*cpu"):
        torch.empty(2, device=GPU) + torch.empty(2)
