"""How like an image is to the radiographs that a model was trained on.

The network's own features tell: a Gaussian is fitted to them (the Mahalanobis distance of Lee et
al. 2018, arXiv:1807.03888), and what lies off its main axes counts as well (the residual of Wang et
al. 2022, arXiv:2203.10807). This belongs to the model: one that was trained on drawings takes
drawings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Axes of the Gaussian at most, and the fewest radiographs per axis.
_AXES = 64
_PER_AXIS = 8
# How far beyond the farthest of n radiographs the limits lie, times their distance by √n. With less
# (2), one of 60 drawings was refused by a model of 240 others.
_SLACK = 6

Floats = NDArray[np.floating[Any]]


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

    mean: Floats
    axes: Floats
    deviations: Floats
    limits: tuple[float, float]
    source: str

    def score(self, features: Floats) -> Floats:
        """How far features are from the training radiographs' as a share of what is accepted.

        Args:
            features: The mean of each feature map of the network, (B, F), F of all views.

        Returns:
            (B,): above 1, an image is refused.
        """
        distances = _distances(features, self.mean, self.axes, self.deviations)
        return np.asarray((distances / self.limits).max(1))

    def arrays(self) -> dict[str, Floats]:
        """What a bundle keeps beside its weights."""
        return {"mean": self.mean, "axes": self.axes, "deviations": self.deviations}

    def to_dict(self) -> dict[str, Any]:
        """What a bundle keeps in its header."""
        return {"limits": list(self.limits), "source": self.source}

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Likeness:
        """Reads what ``to_dict`` and ``arrays`` gave."""
        within, beyond = header["limits"]
        mean, axes, deviations = (
            arrays[name].astype(np.float32) for name in ("mean", "axes", "deviations")
        )
        return cls(mean, axes, deviations, (within, beyond), header["source"])


def fit_likeness(trained: np.ndarray, others: np.ndarray, source: str) -> Likeness:
    """Learns what a model's features are like on radiographs.

    The limits lie a little beyond the farthest radiograph that was not trained on, the more so the
    fewer there are.

    Args:
        trained: Features of training radiographs, (N, F), N at least 2.
        others: Features of radiographs that were not trained on, (M, F), M at least 1.
        source: What they are, in words.
    """
    features = np.asarray(trained, np.float64)
    mean = features.mean(0)
    _, spread, axes = np.linalg.svd(features - mean, full_matrices=False)
    kept = max(1, min(_AXES, len(features) // _PER_AXIS, int((spread > 1e-6 * spread[0]).sum())))
    deviations = np.maximum(spread[:kept] / max(len(features) - 1, 1) ** 0.5, 1e-6)
    found = _distances(np.asarray(others, np.float64), mean, axes[:kept], deviations)
    slack = 1 + _SLACK / len(others) ** 0.5
    # Where the axes hold all there is, what is left beside them is rounding alone.
    rounding = 1e-4 * float(np.linalg.norm(deviations))
    within, beyond = np.maximum(found.max(0) * slack, rounding).tolist()
    return Likeness(
        mean.astype(np.float32),
        axes[:kept].astype(np.float32),
        deviations.astype(np.float32),
        (within, beyond),
        source,
    )


def _distances(features: Floats, mean: Floats, axes: Floats, deviations: Floats) -> Floats:
    """Mahalanobis distance along the axes, and distance off them, (B, 2)."""
    centred = features - mean
    # Not by BLAS, whose threads stay awake for 30 ms after a product and take the network's cores.
    along = np.einsum("bf,kf->bk", centred, axes)
    beside = centred - np.einsum("bk,kf->bf", along, axes)
    return np.stack([np.linalg.norm(each, axis=1) for each in (along / deviations, beside)], 1)
