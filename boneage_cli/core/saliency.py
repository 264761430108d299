"""Where a trained model looks for the age, and the two regions of the hand that follow from it.

The way of HDA_Project's ROI locator: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the age
at the last feature maps of a model of the whole radiograph. The lower of the two hottest peaks is
the carpus; the hottest of those above its square is the metacarpals and phalanges. Peaks are true
local maxima, and squares reach beyond the radiograph where they must, so that both keep their
shape.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.hardware import choose_device
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.landmarks import Points
from boneage_cli.imaging.preprocessing import geometry, preprocess
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import aspect_of
from boneage_cli.models.network import Network

HeatMap = NDArray[np.float32]

# Side of the squares, as a part of the radiograph's shorter side (HDA_Project's value).
SIDE = 0.48
# Heat that a peak must have, of 1 at the hottest place; HDA_Project used 0.25 to 0.4.
THRESHOLD = 0.3
# Shorter side of the maps in which peaks are sought, pixels.
_MAP_SIDE = 192


@dataclass(frozen=True)
class Peak:
    """A local maximum of a heat map: its place in pixels of the map, and its heat (0 to 1)."""

    x: int
    y: int
    heat: float

    @property
    def centre(self) -> Points:
        """The middle of its pixel, (2,), where (0, 0) is the map's corner."""
        return np.array((self.x + 0.5, self.y + 0.5))


@dataclass(frozen=True)
class SalientRegions:
    """The regions that one heat map places.

    Attributes:
        carpal: Corners of the carpal square, (4, 2) fractions of the radiograph's width and height,
            from the top left one clockwise. They may lie outside the radiograph.
        metaph: The same of the metacarpals and phalanges.
        heat: Of the cooler of the two peaks, 0 to 1; 0 where one is missing.
        guessed: The regions without a peak. One alone is the other's point mirror through the
            middle of the radiograph, so that the carpal one is the lower; both are in the middle.
    """

    carpal: Points
    metaph: Points
    heat: float
    guessed: tuple[str, ...]


class AgeSaliency:
    """Grad-CAM of the age that a model predicts.

    A model that takes the child's sex is asked as for a boy and as for a girl, and the two maps are
    averaged: the place of a bone then hangs on no table.

    Args:
        bundle: A model of the family ``global`` that sees radiographs as they are.
        device: Where it runs.

    Raises:
        BoneageError: The model sees regions, sees registered hands, or predicts no age.
    """

    def __init__(self, bundle: Bundle, *, device: str | torch.device = "auto") -> None:
        experiment = bundle.experiment
        if experiment.model.family != "global" or experiment.regions.registered_hand:
            raise BoneageError(
                f"{bundle.path}: this model sees hands or regions that were located before; "
                "Grad-CAM needs one of the family global with regions.registered_hand = false"
            )
        if "age" not in experiment.model.targets:
            raise BoneageError(
                f"{bundle.path}: this model predicts sex; name one that predicts age"
            )
        self.preprocessing = experiment.preprocessing
        network = bundle.network().to(choose_device(device) if isinstance(device, str) else device)
        # Without gradients at the encoder's weights none would reach its feature maps.
        network.requires_grad_(True)
        sexes = (0.0, 1.0) if experiment.model.gender else (None,)
        self._models = [_AgeOfOneView(network, sex) for sex in sexes]
        # The library keeps what its hooks see in the object: one thread at a time.
        self._lock = threading.Lock()

    def heat_maps(self, radiographs: Sequence[Radiograph]) -> list[HeatMap]:
        """Where the age comes from in each radiograph.

        Args:
            radiographs: White bone on black, any size and depth.

        Returns:
            For each a map of the whole radiograph in its true proportions, float32 (H, W) with the
            shorter side 192 pixels; 1 at the hottest place, 0 where nothing adds to the age or the
            model does not look.
        """
        if not radiographs:
            return []
        seen = np.stack([preprocess(radiograph, self.preprocessing) for radiograph in radiographs])
        pixels = torch.from_numpy(seen)[:, None].float()
        with self._lock:
            maps = np.mean([model.grad_cam(pixels) for model in self._models], axis=0)
        return [
            self._of_whole_radiograph(heat, radiograph)
            for heat, radiograph in zip(maps, radiographs, strict=True)
        ]

    def _of_whole_radiograph(self, heat: NDArray[np.float64], radiograph: Radiograph) -> HeatMap:
        aspect = aspect_of(radiograph)
        width, height = (round(_MAP_SIDE * max(side, 1)) for side in (aspect, 1 / aspect))
        # From the map's pixels, by their centres, to those of the network's image.
        matrix = geometry(radiograph, self.preprocessing).matrix
        linear, shift = matrix[:, :2] / (width, height), matrix[:, 2]
        whole = cv2.warpAffine(
            heat.astype(np.float32),
            np.column_stack([linear, shift + linear @ (0.5, 0.5) - 0.5]),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
        hottest = float(whole.max())
        return (whole / max(hottest, 1e-12)).astype(np.float32)


class _AgeOfOneView(nn.Module):
    """The network as the grad-cam library takes it: one tensor in, the scalar age out."""

    def __init__(self, network: Network, male: float | None) -> None:
        super().__init__()
        self.network = network
        self.male = male
        (self.view,) = network.views

    def forward(self, pixels: Tensor) -> Tensor:
        male = None if self.male is None else pixels.new_full((len(pixels),), self.male)
        return self.network({self.view: pixels}, male)["age"]

    def grad_cam(self, pixels: Tensor) -> HeatMap:
        """Maps of the size of the pixels, float32 (B, H, W), each from 0 to 1."""
        # The library brings scikit-learn along, which takes more than a second.
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

        targets: list[nn.Module] = [RawScoresOutputTarget()] * len(pixels)
        with GradCAM(self, [self.network.encoders[self.view]]) as cam, torch.enable_grad():
            return cam(input_tensor=pixels, targets=targets)


def find_peaks(heat: HeatMap, distance: float) -> list[Peak]:
    """The local maxima of a heat map, the hottest first (non-maximum suppression).

    Args:
        heat: (H, W), 0 and more.
        distance: A maximum that is no farther from a hotter peak is none of its own, pixels.
    """
    around = np.ones((3, 3), np.uint8)
    top = (heat > 0) & (heat >= cv2.dilate(heat, around))
    # A level part of a slope has pixels as hot as all round them, but is no top: somewhere at its
    # edge lies a pixel as hot that has a hotter neighbour.
    rim = cv2.dilate(np.where(top, np.float32(-1), heat), around)
    _, labels, _, middles = cv2.connectedComponentsWithStats(top.astype(np.uint8), connectivity=8)
    level, first = np.unique(labels, return_index=True)
    on_slope = np.unique(labels[top & (rim >= heat)])
    candidates = [
        Peak(round(middles[label][0]), round(middles[label][1]), float(heat.flat[place]))
        for label, place in zip(level, first, strict=True)
        if label and label not in on_slope
    ]
    peaks: list[Peak] = []
    for peak in sorted(candidates, key=lambda peak: -peak.heat):
        if all(math.hypot(peak.x - other.x, peak.y - other.y) > distance for other in peaks):
            peaks.append(peak)
    return peaks


def place_regions(heat: HeatMap, threshold: float = THRESHOLD) -> SalientRegions:
    """The carpal and the metacarpal/phalangeal square that a heat map shows.

    Args:
        heat: (H, W) of the whole radiograph in its true proportions, fingers upwards; 0 to 1.
        threshold: Least heat of a peak.
    """
    height, width = heat.shape
    side = SIDE * min(height, width)
    peaks = [peak for peak in find_peaks(heat, side / 2) if peak.heat >= threshold]
    middle = np.array((width, height)) / 2
    carpal = max(peaks[:2], key=lambda peak: peak.y, default=None)
    # What lies in the carpal square's band, or below it, is wrist and forearm.
    above = [peak for peak in peaks if carpal and peak.y < carpal.y - side / 2]
    metaph = above[0] if above else None
    if carpal and not metaph and carpal.y < height / 2:
        # The wrist is the lower one of a peak and its mirror, too.
        carpal, metaph = None, carpal
    carpal_centre = carpal.centre if carpal else 2 * middle - (metaph.centre if metaph else middle)
    metaph_centre = metaph.centre if metaph else 2 * middle - carpal_centre
    square = side / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    found = {"carpal": carpal, "metaph": metaph}
    return SalientRegions(
        carpal=(carpal_centre + square) / (width, height),
        metaph=(metaph_centre + square) / (width, height),
        heat=min(peak.heat if peak else 0.0 for peak in found.values()),
        guessed=tuple(region for region, peak in found.items() if peak is None),
    )
