"""Finding the key points of the hand in radiographs, with the network that the package carries.

The network looks twice: at the whole radiograph, and at the hand as the first look registers it.
Upright and of known size, the hand is found more closely, and a wrong first look shows: the second
is unsure or disagrees. Then the first look is repeated with the radiograph turned by quarters, and
the best is kept; if none will do, all of it once more with black and white exchanged. Whether the
hand then is white on black is read off its gray levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_cli import __version__
from boneage_cli.core.hardware import choose_device
from boneage_cli.core.runtime import Graph, Runner, choose_backend, run_graph
from boneage_cli.core.weights_file import StoredWeights, read_weights, write_weights
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, negative
from boneage_cli.imaging.registration import (
    Matrix,
    apply_inverse,
    aspect_of,
    frame_from_image,
    is_negative,
    warp,
)

if TYPE_CHECKING:
    from boneage_cli.models.landmark_network import LandmarkNetwork

SHIPPED = Path(__file__).parents[1] / "weights" / "landmarks.safetensors"
FORMAT = "boneage-landmarks-1"
CODE = (
    *(Path(__file__), Path(__file__).with_name("graphs.py")),
    Path(__file__).parents[1] / "models" / "landmark_network.py",
)
"""What decides where key points are found, beside the weights and what turns files into pixels."""

# The square of the canonical frame that the second look sees: the hand with room for an error of
# the first, as (left, top, right, bottom).
SECOND_LOOK = (-0.75, -1.20, 0.85, 0.40)
# How much of the first look's side the image takes; the rest is room for the tips of fingers that
# the image cuts off.
_PART_OF_LOOK = 0.85
# Below this the looks are repeated with the radiograph turned by quarters.
UNSURE = 0.93
# Below this no hand is believed in, and the fallback stands in. Gray noise, smooth blobs, markers
# and discs give 0.05 to 0.45, the whole hands of 1,087 radiographs not trained on 0.85 to 1.
LEAST_CONFIDENCE = 0.55
# Of key points, as fractions of the image: processors and backends differ in the seventh, by which
# pixels cut out by them would differ, and months with those. Rounded, few still do.
_DECIMALS = 4
# Radiographs per pass.
_BATCH = 32
# The median key points of 1,226 radiographs of RSNA: an upright left hand in the middle.
FALLBACK = Landmarks(middle_tip=(0.49, 0.08), thumb_tip=(0.90, 0.39), capitate=(0.49, 0.70))


@dataclass(frozen=True)
class Located:
    """The key points of one hand.

    Attributes:
        landmarks: The points; those of an average radiograph where ``fallback`` is set.
        confidence: 0 to 1: the share of the heat maps' heat that is at the point found, of the
            least sure of the three points.
        fallback: Whether no hand was found, so that the landmarks are a guess.
        inverted: Whether the hand is darker than what lies beside it, as in a file that stores
            black bone on white and does not say so.
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
        size: Side of the square that it sees, pixels.
        metrics: Figures measured when it was made.
        provenance: Data, recipe, software.
    """

    network: LandmarkNetwork
    size: int
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def save_landmark_bundle(bundle: LandmarkBundle, path: Path) -> None:
    """Writes a key-point bundle in 16-bit floats, whole or not at all."""
    header = {
        "format": FORMAT,
        "size": bundle.size,
        "metrics": bundle.metrics,
        "provenance": {"software": f"boneage {__version__}", **bundle.provenance},
    }
    write_weights(header, bundle.network.state_dict(), path, half=True)


def load_landmark_bundle(path: Path = SHIPPED) -> LandmarkBundle:
    """Reads a key-point bundle; the one that the package carries by default.

    Raises:
        BoneageError: There is no such file, or it is no key-point bundle.
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
        Path(path), "key-point bundle", FORMAT, "boneage train-landmarks"
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
    """The key-point network of a bundle as every runtime takes it, and the side of its square.

    Raises:
        BoneageError: There is no such file, or it is no key-point bundle.
    """
    path = Path(path)
    header, weights = _read(path)
    make = partial(_network, weights, path)
    return _graph(make, header["size"], weights.digest), header["size"]


def _graph(make: Callable[[], LandmarkNetwork], size: int, key: str | None = None) -> Graph:
    """The key-point network as every runtime takes it, see ``KeyPointGraph``."""

    def graph() -> Any:
        from boneage_cli.core.graphs import KeyPointGraph

        return KeyPointGraph(make()).eval()

    return Graph(graph, {"pixels": ((1, size, size), np.uint8)}, ("points", "shares"), key)


class LandmarkLocator:
    """Finds the key points of hands at any turn, size, aspect and mirror.

    The network always runs in full precision, so that a hand is cut out alike on every machine.

    Args:
        run: The network, see ``KeyPointGraph``.
        size: Side of the square that it sees, pixels.
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
        """Reads a bundle, the shipped one by default.

        Where OpenVINO is installed it runs on the CPU, in the threads that read, whatever the
        device: a GPU has better things to do than one small image at a time.

        Raises:
            BoneageError: It cannot be read, or the device is not there.
        """
        graph, size = landmark_graph(path or SHIPPED)
        device = choose_device(device)
        if backend == "auto" and choose_backend("auto", "cpu", "32") == "openvino":
            device = "cpu"
        run = run_graph(graph, backend, device, "32")
        return cls(run, size)

    @classmethod
    def of(cls, bundle: LandmarkBundle, *, device: str = "auto") -> LandmarkLocator:
        """Takes a network that is in memory, which moves to the device; it runs in torch."""
        graph = _graph(lambda: bundle.network.eval(), bundle.size)
        run = run_graph(graph, "torch", choose_device(device), "32")
        return cls(run, bundle.size)

    def locate(self, radiographs: Sequence[Radiograph]) -> list[Located]:
        """Finds the key points of each radiograph's hand.

        Args:
            radiographs: White bone on black, any size and depth.

        Returns:
            One result per radiograph, in order. Where the network is not sure of a hand the
            result is ``FALLBACK``, and says so.
        """
        found: list[Located] = []
        for start in range(0, len(radiographs), _BATCH):
            found += self._locate_batch(radiographs[start : start + _BATCH])
        return found

    def sureness(self, radiograph: Radiograph, quarters: int = 0) -> float:
        """How sure the network is of a hand in one pose, without trying others.

        Args:
            radiograph: White bone on black.
            quarters: By how many quarters it is turned, as by ``numpy.rot90``.

        Returns:
            As ``Located.confidence``; 0 where there is nothing like a hand.
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
        """Points and confidence per radiograph; 0 where the first look makes no hand."""
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
        """The points that the network sees through frames, as fractions of the radiographs."""
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
    """The transform from fractions of an image to those of a square that holds all of it and more.

    Args:
        aspect: Width of the image divided by its height, as it was taken.
        quarters: By how many quarters the image is turned, as by ``numpy.rot90``.
    """
    scale = _PART_OF_LOOK / max(aspect, 1.0)
    linear = np.diag((aspect * scale, scale))
    for _ in range(quarters % 4):
        linear = np.array([[0.0, 1.0], [-1.0, 0.0]]) @ linear
    return np.column_stack([linear, 0.5 - linear @ (0.5, 0.5)])
