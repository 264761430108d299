"""Out-of-distribution detection on the network's features.

A Gaussian is fitted to the features of training radiographs. An image is scored by its Mahalanobis
distance along the main axes (Lee et al. 2018, arXiv:1807.03888) and by its distance off them (the
residual of Wang et al. 2022, arXiv:2203.10807). The detector belongs to the model: one that was
trained on drawings accepts drawings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Maximum number of the Gaussian's axes, and minimum number of radiographs per axis.
_AXES = 64
_PER_AXIS = 8
# Safety margin: each limit is the largest distance among n radiographs not used for training, times
# 1 + 6/√n. With 2 instead of 6, a model of 240 drawings refused one of 60 others.
_SLACK = 6

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Likeness:
    """An out-of-distribution detector: the distribution of a model's features, and limits.

    Attributes:
        mean: Mean of the features, (F,).
        axes: The main axes of their distribution, orthonormal, (K, F).
        deviations: Standard deviation along each axis, (K,).
        limits: The largest accepted Mahalanobis distance along the axes, and the largest accepted
            distance off them.
        source: Description of the radiographs that it was fitted to.
    """

    mean: Floats
    axes: Floats
    deviations: Floats
    limits: tuple[float, float]
    source: str

    def score(self, features: Floats) -> Floats:
        """Returns the distance of features from those of training, as a fraction of the limit.

        Args:
            features: The mean of each feature map of the network, (B, F), F over all views.

        Returns:
            Scores, (B,); an image above 1 is refused.
        """
        distances = _distances(features, self.mean, self.axes, self.deviations)
        return np.asarray((distances / self.limits).max(1))

    def arrays(self) -> dict[str, Floats]:
        """The arrays that a bundle stores next to its weights."""
        return {"mean": self.mean, "axes": self.axes, "deviations": self.deviations}

    def to_dict(self) -> dict[str, Any]:
        """The values that a bundle stores in its header."""
        return {"limits": list(self.limits), "source": self.source}

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Likeness:
        """Rebuilds a detector from the values of ``to_dict`` and ``arrays``."""
        within, beyond = header["limits"]
        mean, axes, deviations = (
            arrays[name].astype(np.float32) for name in ("mean", "axes", "deviations")
        )
        return cls(mean, axes, deviations, (within, beyond), header["source"])


def fit_likeness(trained: np.ndarray, others: np.ndarray, source: str) -> Likeness:
    """Fits an out-of-distribution detector to a model's features.

    The limits lie slightly above the largest distances among radiographs not used for training;
    the fewer of these, the larger the margin.

    Args:
        trained: Features of training radiographs, (N, F), N at least 2.
        others: Features of radiographs not used for training, (M, F), M at least 1.
        source: Description of the radiographs.
    """
    features = np.asarray(trained, np.float64)
    mean = features.mean(0)
    _, spread, axes = np.linalg.svd(features - mean, full_matrices=False)
    kept = max(1, min(_AXES, len(features) // _PER_AXIS, int((spread > 1e-6 * spread[0]).sum())))
    deviations = np.maximum(spread[:kept] / max(len(features) - 1, 1) ** 0.5, 1e-6)
    found = _distances(np.asarray(others, np.float64), mean, axes[:kept], deviations)
    slack = 1 + _SLACK / len(others) ** 0.5
    # If the axes span all the variance, the residual consists of rounding errors only.
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
    # Not by BLAS, whose threads spin for 30 ms after a product and occupy the network's cores.
    along = np.einsum("bf,kf->bk", centred, axes)
    beside = centred - np.einsum("bk,kf->bf", along, axes)
    return np.stack([np.linalg.norm(each, axis=1) for each in (along / deviations, beside)], 1)
