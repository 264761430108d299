"""Where the regions of a hand are: as the key points place them, or at the peaks of saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.core.landmarks import LandmarkLocator
from boneage_cli.core.regions.salient_regions import THRESHOLD, place_regions
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import Region, aspect_of, region_corners

if TYPE_CHECKING:
    from boneage_cli.core.explanation.saliency import AgeSaliency

CROPPED: tuple[Region, ...] = ("carpal", "metaph")


@dataclass(frozen=True)
class LocatedRegions:
    """The regions of one radiograph.

    Attributes:
        corners: Of each of ``CROPPED``, (4, 2) fractions of the radiograph's width and height: what
            becomes top left, top right, bottom right and bottom left of the crop. They may lie
            outside the radiograph.
        confidence: 0 to 1: of the least sure key point, or the heat of the cooler peak.
        fallback: Whether any region is a guess.
        landmarks: The key points, where the method finds them.
        heat: The heat map, where the method makes one.
        inverted: Whether the crops show the radiograph's negative, see ``Located``.
    """

    corners: Mapping[Region, Points]
    confidence: float
    fallback: bool
    landmarks: Landmarks | None = None
    heat: HeatMap | None = None
    inverted: bool = False


class RegionLocator(Protocol):
    """What finds the regions of radiographs; from several threads at a time."""

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """The regions of each radiograph."""
        ...


class KeyPointRegions:
    """Regions as the key points place them.

    Args:
        locator: What finds the key points.
    """

    def __init__(self, locator: LandmarkLocator) -> None:
        self.locator = locator

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """The regions of each radiograph."""
        return [
            LocatedRegions(
                corners={
                    region: region_corners(found.landmarks, aspect_of(radiograph), region, shape=1)
                    for region in CROPPED
                },
                confidence=found.confidence,
                fallback=found.fallback,
                landmarks=found.landmarks,
                inverted=found.inverted,
            )
            for radiograph, found in zip(radiographs, self.locator.locate(radiographs), strict=True)
        ]


class SalientPeaks:
    """Regions at the peaks of an age model's saliency.

    Args:
        saliency: What makes the heat maps.
        threshold: Least heat of a peak.
    """

    def __init__(self, saliency: AgeSaliency, threshold: float = THRESHOLD) -> None:
        self.saliency = saliency
        self.threshold = threshold

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """The regions of each radiograph."""
        results = []
        for heat in self.saliency.heat_maps(radiographs):
            found = place_regions(heat, self.threshold)
            results.append(
                LocatedRegions(
                    corners={"carpal": found.carpal, "metaph": found.metaph},
                    confidence=found.heat,
                    fallback=bool(found.guessed),
                    heat=heat,
                )
            )
        return results
