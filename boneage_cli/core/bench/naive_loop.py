"""The reference for predict's speed: a plain loop over radiographs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import cv2
import numpy as np
import torch

from boneage_cli.core.bench.timing import WARM_UP, rate_of
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.views import shapes_of
from boneage_cli.errors import BoneageError


def check_readable(chosen: Sequence[Case]) -> None:
    """Refuses radiographs that the naive loop cannot read.

    Raises:
        BoneageError: OpenCV cannot read a file.
    """
    for case in chosen:
        _read(case)


def _read(case: Case) -> np.ndarray:
    image = cv2.imread(case.path, cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise BoneageError(
            f"{case.path}: --reference reads with OpenCV alone; give it PNG, JPEG or TIFF files"
        )
    return image


@torch.no_grad()
def naive_loop(predictor: Predictor, chosen: Sequence[Case], seconds: float) -> dict[str, Any]:
    """Times what a simple script does: image by image, in full precision, in eager torch.

    Args:
        predictor: The predictor whose networks and device are used.
        chosen: The radiographs, repeated until the time is up.
        seconds: The duration; every radiograph is read at least once.

    Returns:
        ``images``, ``seconds`` and ``images_per_s``.

    Raises:
        BoneageError: OpenCV cannot read a file.
    """
    networks = [bundle.network().to(predictor.device) for bundle in predictor.bundles]
    shapes = [shapes_of(bundle.experiment) for bundle in predictor.bundles]

    def ask(case: Case) -> float:
        image = _read(case)
        male = torch.tensor([1.0 if case.male else 0.0], device=predictor.device)
        total = 0.0
        for bundle, network, sizes in zip(predictor.bundles, networks, shapes, strict=True):
            views = {
                name: torch.from_numpy(cv2.resize(image, (width, height)))[None, None].to(
                    predictor.device
                )
                for name, (height, width) in sizes.items()
            }
            sex = male if bundle.experiment.model.gender else None
            answer = network(views, sex)
            total += answer["age" if "age" in answer else "sex"].item()
        return total / len(networks)

    # Full precision: with TF32, convolutions on GPUs would keep only ten bits of the mantissa.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for case in islice(cycle(chosen), WARM_UP):
            ask(case)
        count, begun = 0, time.perf_counter()
        while count < len(chosen) or time.perf_counter() < begun + seconds:
            ask(chosen[count % len(chosen)])
            count += 1
        return rate_of(count, time.perf_counter() - begun)
