"""Augmentation by degraded copies of radiographs, as archives and messengers produce them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from boneage_cli.imaging.perturbations import (
    add_noise,
    as_jpeg,
    blur,
    brighten,
    reduce_to,
    scale_contrast,
)
from boneage_cli.imaging.radiograph import Radiograph

# In the order in which they affect an image: exposure, optics, detector, file. Each takes a
# radiograph and the severity, from 0 to 1.
_STEPS: tuple[Callable[[Radiograph, float], Radiograph], ...] = (
    lambda image, bad: scale_contrast(image, 1 - 0.6 * bad),
    lambda image, bad: brighten(image, -0.3 * bad),
    lambda image, bad: blur(image, 0.001 + 0.006 * bad),
    lambda image, bad: reduce_to(image, round(280 * (100 / 280) ** bad)),
    lambda image, bad: add_noise(image, 0.12 * bad),
    lambda image, bad: as_jpeg(image, round(80 * (12 / 80) ** bad)),
)
# Probability of each step; on average two of six are applied.
_PROBABILITY = 1 / 3


def degrade(radiograph: Radiograph, rng: np.random.Generator) -> Radiograph:
    """Returns a copy that is faded, darker, blurred, small, noisy, a JPEG, or several of these.

    The severity ranges from almost invisible to hiding much of the hand.

    Args:
        radiograph: Any size and depth; it is not modified.
        rng: Chooses the steps and their severity: the same state gives the same copy.

    Returns:
        The copy, at the same depth unless JPEG compression reduced it to 8 bits.
    """
    happens = rng.random(len(_STEPS)) < _PROBABILITY
    # At least one step is applied.
    happens[rng.integers(len(_STEPS))] = True
    badness = rng.random(len(_STEPS))
    for step, wanted, bad in zip(_STEPS, happens, badness, strict=True):
        if wanted:
            radiograph = step(radiograph, float(bad))
    return radiograph
