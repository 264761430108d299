"""What is no hand radiograph, and gets a reason instead of an age.

Two checks. The key points of a registered hand tell whether there is a whole hand at all. And the
network's own features tell whether an image is like those that it was trained on: a Gaussian is
fitted to them (the Mahalanobis distance of Lee et al. 2018, arXiv:1807.03888), and what lies off
its main axes counts as well (the residual of Wang et al. 2022, arXiv:2203.10807). The second check
belongs to the model: one that was trained on drawings takes drawings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boneage_cli.core.landmarks import Located
from boneage_cli.imaging.landmarks import Points
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import aspect_of, canonical_from_image

# Below this the key-point network is not sure of a whole hand. Of 400 radiographs of RSNA's that it
# was not trained on one has less; of 100 of them cut through the hand, a fifth of its length above
# the capitate, all but two.
SURE = 0.80
# Between the middle fingertip and the end of the image, in hand lengths; 0 where it is at the edge.
LEAST_ABOVE_FINGERTIP = 0.0
# The same from the capitate's centre down the forearm: the epiphysis of the radius ends there.
LEAST_BELOW_CAPITATE = 0.14
# Where the thumb's tip is in registered hands: of 1,563 marked by hand at 0.23 to 0.73 and -1.09 to
# -0.11.
_THUMB = np.array(((0.13, -1.15), (0.83, -0.03)))
# Axes of the Gaussian at most, and the fewest radiographs per axis.
_AXES = 64
_PER_AXIS = 8
# How far beyond the farthest of n radiographs the limits lie, times their distance by √n. With less
# (2), one of 60 drawings was refused by a model of 240 others.
_SLACK = 6


@dataclass(frozen=True)
class Likeness:
    """How like an image is to the radiographs that a model was trained on, by its features.

    Attributes:
        mean: Of the features, (F,).
        axes: The main axes of their distribution, orthonormal, (K, F).
        deviations: Standard deviation along each, (K,).
        limits: The largest Mahalanobis distance along the axes, and the largest distance off them,
            that are accepted.
        source: What they were measured on, in words.
    """

    mean: Tensor
    axes: Tensor
    deviations: Tensor
    limits: tuple[float, float]
    source: str

    def score(self, features: Tensor) -> Tensor:
        """How far features are from the training radiographs' as a share of what is accepted.

        Args:
            features: (B, F), see ``pooled``.

        Returns:
            (B,): above 1, an image is refused.
        """
        device = features.device
        distances = _distances(
            features, self.mean.to(device), self.axes.to(device), self.deviations.to(device)
        )
        return (distances / torch.tensor(self.limits, device=device)).amax(1)

    def tensors(self) -> dict[str, Tensor]:
        """What a bundle keeps beside its weights."""
        return {"mean": self.mean, "axes": self.axes, "deviations": self.deviations}

    def to_dict(self) -> dict[str, Any]:
        """What a bundle keeps in its header."""
        return {"limits": list(self.limits), "source": self.source}

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Likeness:
        """Reads what ``to_dict`` and ``tensors`` gave."""
        within, beyond = header["limits"]
        parts = {name: tensors[name].float() for name in ("mean", "axes", "deviations")}
        return cls(limits=(within, beyond), source=header["source"], **parts)


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """The features by which likeness is judged: the mean of each feature map, float32.

    Args:
        maps: As ``Network.encode`` gives them, (B, C, h, w) each.

    Returns:
        (B, F), F the channels of all views.
    """
    return torch.cat([each.float().mean((2, 3)) for each in maps], 1)


def fit_likeness(trained: np.ndarray, others: np.ndarray, source: str) -> Likeness:
    """Learns what a model's features are like on radiographs.

    The limits lie a little beyond the farthest radiograph that was not trained on, the more so the
    fewer there are.

    Args:
        trained: Features of training radiographs, (N, F), N at least 2.
        others: Features of radiographs that were not trained on, (M, F), M at least 1.
        source: What they are, in words.
    """
    features = torch.from_numpy(np.asarray(trained, np.float32)).double()
    mean = features.mean(0)
    _, spread, axes = torch.linalg.svd(features - mean, full_matrices=False)
    kept = max(1, min(_AXES, len(features) // _PER_AXIS, int((spread > 1e-6 * spread[0]).sum())))
    deviations = (spread[:kept] / (len(features) - 1) ** 0.5).clamp(min=1e-6)
    found = _distances(
        torch.from_numpy(np.asarray(others, np.float32)).double(), mean, axes[:kept], deviations
    )
    slack = 1 + _SLACK / len(others) ** 0.5
    # Where the axes hold all there is, what is left beside them is rounding alone.
    rounding = 1e-4 * deviations.norm().item()
    within, beyond = (found.amax(0) * slack).clamp(min=rounding).tolist()
    return Likeness(mean.float(), axes[:kept].float(), deviations.float(), (within, beyond), source)


def reason_of_key_points(radiograph: Radiograph, located: Located) -> str | None:
    """Why key points speak against a whole hand: a code of ``cases.REASONS``, or None."""
    aspect = aspect_of(radiograph)
    if located.confidence < SURE or located.fallback:
        return "no-hand"
    matrix = canonical_from_image(located.landmarks, aspect)
    thumb = matrix[:, :2] @ located.landmarks.array()[1] + matrix[:, 2]
    if not ((_THUMB[0] <= thumb) & (thumb <= _THUMB[1])).all():
        return "no-hand"
    above = _room(matrix, np.array((0.0, -1.0)), np.array((0.0, -1.0)))
    if above < LEAST_ABOVE_FINGERTIP:
        return "fingers-cut-off"
    if _room(matrix, np.array((0.0, 0.0)), np.array((0.0, 1.0))) < LEAST_BELOW_CAPITATE:
        return "wrist-cut-off"
    return None


def _room(matrix: np.ndarray, start: Points, direction: Points) -> float:
    """From a point of the canonical frame to the image's edge, hand lengths; -1 if outside."""
    inverse = np.linalg.inv(matrix[:, :2])
    place = inverse @ (start - matrix[:, 2])
    step = inverse @ direction
    if (place < 0).any() or (place > 1).any():
        return -1.0
    with np.errstate(divide="ignore"):
        ends = np.where(step > 0, (1 - place) / step, -place / step)
    return float(np.min(ends[np.abs(step) > 1e-12]))


def _distances(features: Tensor, mean: Tensor, axes: Tensor, deviations: Tensor) -> Tensor:
    """Mahalanobis distance along the axes, and distance off them, (B, 2)."""
    centred = features - mean
    along = centred @ axes.T
    return torch.stack([(along / deviations).norm(dim=1), (centred - along @ axes).norm(dim=1)], 1)
