"""Detects the key points of the hand in radiographs with the package's key-point network.

The network runs twice: on the whole radiograph, and on the hand as registered by the first pass.
The second pass is more accurate, since the hand is upright and of known size, and its confidence is
low if the first pass was wrong. In that case both passes are repeated with the radiograph rotated
by 90, 180 and 270 degrees, and the most confident result is kept; if that is not confident enough
either, all is repeated on the negative. Whether the radiograph is a negative is then decided from
the gray levels of the hand found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_cli import __version__
from boneage_cli.core.conversion import Graph
from boneage_cli.core.hardware import choose_device
from boneage_cli.core.runtime import Runner, choose_backend, run_graph
from boneage_cli.core.weights_file import StoredWeights, read_weights, write_weights
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.inversion import is_negative
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of, negative
from boneage_cli.imaging.registration import apply_inverse, frame_from_image
from boneage_cli.imaging.warping import warp

if TYPE_CHECKING:
    from boneage_cli.models.landmark_network import LandmarkNetwork

SHIPPED = Path(__file__).parents[1] / "weights" / "landmarks.safetensors"
LANDMARKS_FORMAT = "boneage-landmarks-1"
CODE = (
    *(Path(__file__), Path(__file__).with_name("graphs.py")),
    Path(__file__).parents[1] / "models" / "landmark_network.py",
)
"""Code that affects the key points, besides ``imaging``; part of cache keys, as are the weights."""

# Square of the canonical frame that the second pass sees, (left, top, right, bottom): the hand with
# a margin for errors of the first pass.
SECOND_LOOK = (-0.75, -1.20, 0.85, 0.40)
# Fraction of the first pass's square that the image fills; the margin leaves room for fingertips
# that lie outside the image.
_PART_OF_LOOK = 0.85
# Confidence below which the passes are repeated with the radiograph rotated.
UNSURE = 0.93
# Confidence below which the result is the fallback. Gray noise, smooth blobs, markers and discs
# give 0.05 to 0.45, whole hands in 1,087 radiographs not used for training 0.85 to 1.
LEAST_CONFIDENCE = 0.55
# Decimals to which key points are rounded, as fractions of the image. CPUs and backends differ in
# the seventh decimal; unrounded, crops and so predicted ages would differ between machines. Rounded
# ones rarely do.
_DECIMALS = 4
# Batch size of the network.
_BATCH = 32
# The median key points of 1,226 RSNA radiographs: an upright left hand in the middle.
FALLBACK = Landmarks(middle_tip=(0.49, 0.08), thumb_tip=(0.90, 0.39), capitate=(0.49, 0.70))


@dataclass(frozen=True)
class Located:
    """The key points of one hand.

    Attributes:
        landmarks: The key points; those of an average radiograph if ``fallback`` is set.
        confidence: 0 to 1: the smallest of the three points' confidences, each the fraction of the
            heat map's sum that lies at the point found.
        fallback: Whether no hand was found, so that the key points are a guess.
        inverted: Whether the hand is darker than its surroundings, as in a file that stores black
            bone on white without saying so.
    """

    landmarks: Landmarks
    confidence: float
    fallback: bool
    inverted: bool = False


@dataclass(frozen=True)
class LandmarkBundle:
    """The key-point network on disk.

    Attributes:
        network: The network, ready to predict.
        size: Side of its square input, pixels.
        metrics: Metrics measured when it was trained.
        provenance: Data, recipe, software.
    """

    network: LandmarkNetwork
    size: int
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def save_landmark_bundle(bundle: LandmarkBundle, path: Path) -> None:
    """Writes a key-point bundle in 16-bit floats, atomically."""
    header = {
        "format": LANDMARKS_FORMAT,
        "size": bundle.size,
        "metrics": bundle.metrics,
        "provenance": {"software": f"boneage {__version__}", **bundle.provenance},
    }
    write_weights(header, bundle.network.state_dict(), path, half=True)


def load_landmark_bundle(path: Path = SHIPPED) -> LandmarkBundle:
    """Reads a key-point bundle, by default the package's.

    Raises:
        BoneageError: The file does not exist or is not a key-point bundle.
    """
    header, weights = _read(path)
    return LandmarkBundle(
        _network(weights, path),
        header["size"],
        header.get("metrics", {}),
        header.get("provenance", {}),
    )


def _read(path: Path) -> tuple[dict[str, Any], StoredWeights]:
    header, weights, _ = read_weights(
        Path(path), "key-point bundle", LANDMARKS_FORMAT, "boneage train-landmarks"
    )
    return header, weights


def _network(weights: StoredWeights, path: Path) -> LandmarkNetwork:
    from boneage_cli.models.landmark_network import LandmarkNetwork

    network = LandmarkNetwork()
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise BoneageError(f"{path}: the weights do not fit the network ({first_line})") from None
    return network.eval()


def landmark_graph(path: Path = SHIPPED) -> tuple[Graph, int]:
    """Returns a bundle's key-point network as a graph, and the side of its square input, pixels.

    Raises:
        BoneageError: The file does not exist or is not a key-point bundle.
    """
    path = Path(path)
    header, weights = _read(path)
    make = partial(_network, weights, path)
    return _graph(make, header["size"], weights.digest), header["size"]


def _graph(make: Callable[[], LandmarkNetwork], size: int, key: str | None = None) -> Graph:
    """The key-point network as a graph for any backend, see ``KeyPointGraph``."""

    def graph() -> Any:
        from boneage_cli.core.graphs import KeyPointGraph

        return KeyPointGraph(make()).eval()

    return Graph(graph, {"pixels": ((1, size, size), np.uint8)}, ("points", "shares"), key)


class LandmarkLocator:
    """Finds the key points of hands of any rotation, size and aspect ratio, mirrored or not.

    The network always runs in full precision, so that crops are the same on every machine.

    Args:
        run: The network, see ``KeyPointGraph``.
        size: Side of its square input, pixels.
    """

    def __init__(self, run: Runner, size: int) -> None:
        self.run = run
        self.size = size

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        device: str = "auto",
        backend: str = "auto",
    ) -> LandmarkLocator:
        """Reads a bundle, by default the package's.

        If OpenVINO is installed, the network runs on the CPU, in the reading threads, whatever the
        device, because single small images would use a GPU poorly.

        Raises:
            BoneageError: The bundle cannot be read, or the device does not exist.
        """
        graph, size = landmark_graph(path or SHIPPED)
        device = choose_device(device)
        if backend == "auto" and choose_backend("auto", "cpu", "32") == "openvino":
            device = "cpu"
        run = run_graph(graph, backend, device, "32")
        return cls(run, size)

    @classmethod
    def of(cls, bundle: LandmarkBundle, *, device: str = "auto") -> LandmarkLocator:
        """Wraps a network in memory, which is moved to the device and runs in torch."""
        graph = _graph(lambda: bundle.network.eval(), bundle.size)
        run = run_graph(graph, "torch", choose_device(device), "32")
        return cls(run, bundle.size)

    def locate(self, radiographs: Sequence[Radiograph]) -> list[Located]:
        """Finds the key points of each radiograph's hand.

        Args:
            radiographs: White bone on black, any size and depth.

        Returns:
            One result per radiograph, in order. At low confidence it is ``FALLBACK``, with
            ``fallback`` set.
        """
        found: list[Located] = []
        for start in range(0, len(radiographs), _BATCH):
            found += self._locate_batch(radiographs[start : start + _BATCH])
        return found

    def sureness(self, radiograph: Radiograph, quarters: int = 0) -> float:
        """Returns the confidence that there is a hand in one pose, without trying others.

        Args:
            radiograph: White bone on black.
            quarters: Number of 90-degree rotations, as in ``numpy.rot90``.

        Returns:
            As ``Located.confidence``; 0 if nothing resembles a hand.
        """
        ((_, confidence),) = self._two_looks([radiograph], quarters)
        return confidence

    def _locate_batch(self, radiographs: Sequence[Radiograph]) -> list[Located]:
        best = self._two_looks(radiographs, 0)
        for inverted in (False, True):
            unsure = [place for place, (_, confidence) in enumerate(best) if confidence < UNSURE]
            again = [radiographs[place] for place in unsure]
            if inverted:
                again = [negative(radiograph) for radiograph in again]
            for quarters in range(0 if inverted else 1, 4) if unsure else ():
                for place, found in zip(unsure, self._two_looks(again, quarters), strict=True):
                    best[place] = max(best[place], found, key=lambda result: result[1])
        results = []
        for radiograph, (points, confidence) in zip(radiographs, best, strict=True):
            if confidence < LEAST_CONFIDENCE:
                results.append(Located(FALLBACK, confidence, fallback=True))
            else:
                found_at = Landmarks.from_array(points)
                inverted = is_negative(radiograph, found_at)
                results.append(Located(found_at, confidence, fallback=False, inverted=inverted))
        return results

    def _two_looks(
        self, radiographs: Sequence[Radiograph], quarters: int
    ) -> list[tuple[Points, float]]:
        """Key points and confidence per radiograph; 0 if a pass finds no plausible hand."""
        first = self._look(
            radiographs, [whole_image_frame(aspect_of(image), quarters) for image in radiographs]
        )
        results = [(points, 0.0) for points, _ in first]
        frames, places = [], []
        for place, (radiograph, (points, _)) in enumerate(zip(radiographs, first, strict=True)):
            landmarks = Landmarks.from_array(points)
            if landmarks.hand_length(aspect_of(radiograph)) > 0.02:
                frames.append(frame_from_image(radiograph, landmarks, SECOND_LOOK))
                places.append(place)
        second = self._look([radiographs[place] for place in places], frames)
        for place, result in zip(places, second, strict=True):
            if Landmarks.from_array(result[0]).hand_length(aspect_of(radiographs[place])) > 0.02:
                results[place] = result
        return results

    def _look(
        self, radiographs: Sequence[Radiograph], frames: Sequence[Matrix]
    ) -> list[tuple[Points, float]]:
        """Runs the network on framed parts; points as fractions of the radiographs, confidences."""
        if not radiographs:
            return []
        pixels = np.stack(
            [
                warp(radiograph, frame, self.size, self.size)
                for radiograph, frame in zip(radiographs, frames, strict=True)
            ]
        )
        points, shares = (found.astype(np.float64) for found in self.run(pixels[:, None]))
        return [
            (
                np.round(apply_inverse(frame, seen), _DECIMALS),
                float(share.min()),
            )
            for seen, share, frame in zip(points, shares, frames, strict=True)
        ]


def whole_image_frame(aspect: float, quarters: int = 0) -> Matrix:
    """Affine matrix, (2, 3), from fractions of an image to those of a square with a margin.

    Args:
        aspect: Width of the image divided by its height, as it was taken.
        quarters: Number of 90-degree rotations of the image, as in ``numpy.rot90``.
    """
    scale = _PART_OF_LOOK / max(aspect, 1.0)
    linear = np.diag((aspect * scale, scale))
    for _ in range(quarters % 4):
        linear = np.array([[0.0, 1.0], [-1.0, 0.0]]) @ linear
    return np.column_stack([linear, 0.5 - linear @ (0.5, 0.5)])
