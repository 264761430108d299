"""Trains or evaluates a key-point network on tables of key points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.hardware import choose_device
from boneage_cli.core.landmark_training.evaluation import measure_salient_peaks
from boneage_cli.core.landmark_training.examples import LandmarkExample, read_examples
from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
from boneage_cli.core.landmark_training.training import measure_bundle, train_landmarks
from boneage_cli.core.landmarks import load_landmark_bundle
from boneage_cli.core.overwriting import check_model_output
from boneage_cli.core.regions.age_saliency import AgeSaliency
from boneage_cli.core.regions.locators import SalientPeaks
from boneage_cli.datasets.find_dataset import find_dataset
from boneage_cli.errors import BoneageError
from boneage_cli.files import check_writable, explaining_write_errors

Metrics = dict[str, dict[str, float]]
"""Metrics by pose, see ``evaluation.measure``."""


@dataclass(frozen=True)
class LandmarkFiles:
    """Paths of hand-placed key points and their radiographs; see ``read_examples``.

    Attributes:
        keypoints: Table of key points.
        images: A folder of radiographs, or
        data: a data set's folder or name.
        native_size: Table of the original sizes of the radiographs.
        boxes: Table of hand-drawn boxes.
    """

    keypoints: Path
    images: Path | None = None
    data: Path | None = None
    native_size: Path | None = None
    boxes: Path | None = None

    def read(self) -> list[LandmarkExample]:
        """Reads the radiographs with their annotations.

        Raises:
            BoneageError: None or both of ``images`` and ``data`` are given, or a table is invalid.
        """
        if (self.images is None) == (self.data is None):
            raise BoneageError("give the radiographs by one of --images DIR and --data DIR")
        return read_examples(
            self.keypoints,
            images=self.images,
            data=None if self.data is None else find_dataset(self.data),
            native_size=self.native_size,
            boxes=self.boxes,
        )


def train_or_measure(
    files: LandmarkFiles,
    recipe: LandmarkRecipe,
    output: Path,
    *,
    weights: Path | None = None,
    evaluate: Path | None = None,
    gradcam: Path | None = None,
    device: str = "auto",
    begin: Callable[[int, int], None] | None = None,
    report: Callable[[int, float], None] | None = None,
) -> tuple[Metrics, Metrics | None]:
    """Trains a key-point network or loads one, and evaluates it on held-out radiographs.

    Args:
        files: The radiographs.
        recipe: The training settings.
        output: The bundle to write.
        weights: A key-point bundle to start from; None for ImageNet's weights.
        evaluate: A key-point bundle to evaluate instead of training one.
        gradcam: The bundle of an age model, whose Grad-CAM regions are evaluated, too.
        device: The device of the networks.
        begin: Called with the numbers of training and of held-out radiographs.
        report: As in ``train_landmarks``.

    Returns:
        The metrics of the key-point network, and those of the Grad-CAM regions or None.

    Raises:
        BoneageError: A file is invalid, there are no boxes to evaluate ``gradcam`` on, or the
            bundle cannot be written or would replace an input file.
    """
    if gradcam is not None and files.boxes is None:
        raise BoneageError("--gradcam: regions are measured on boxes; name a table with --boxes")
    if evaluate is None:
        read = [files.keypoints, files.boxes, files.native_size, weights]
        check_model_output(output, [str(path) for path in read if path])
        check_writable(output)
    where = choose_device(device)
    peaks = None
    if gradcam is not None:
        peaks = SalientPeaks(AgeSaliency(load_bundle(gradcam), device=where))
    examples = files.read()
    boxed = [(each.radiograph, each.boxes) for each in examples if each.boxes is not None]
    if peaks is not None and not boxed:
        raise BoneageError(f"{files.boxes}: none of its ids has an image; name the right table")
    held_out = sum(example.held_out for example in examples)
    if begin:
        begin(len(examples) - held_out, held_out)
    if evaluate is not None:
        figures = measure_bundle(load_landmark_bundle(evaluate), examples, device=where)
    else:
        with explaining_write_errors(output):
            figures = train_landmarks(
                examples, recipe, output, device=where, weights=weights, report=report
            ).metrics
    if peaks is None:
        return figures, None
    radiographs, tables = zip(*boxed, strict=True)
    return figures, measure_salient_peaks(peaks, radiographs, tables)
