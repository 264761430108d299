"""Locates the regions of a hand, by key points or at the peaks of a saliency map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.core.landmarks import LandmarkLocator
from boneage_cli.core.regions.salient_regions import THRESHOLD, place_regions
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.registration import Region, region_corners

if TYPE_CHECKING:
    from boneage_cli.core.regions.age_saliency import AgeSaliency

CROPPED: tuple[Region, ...] = ("carpal", "metaph")


@dataclass(frozen=True)
class LocatedRegions:
    """The regions of one radiograph.

    Attributes:
        corners: Corners of each of ``CROPPED``, (4, 2) fractions of the radiograph's width and
            height: top left, top right, bottom right and bottom left of the crop. They may lie
            outside the radiograph.
        confidence: 0 to 1: that of the least certain key point, or the heat of the lower peak.
        fallback: Whether any region is a guess.
        landmarks: The key points, if the method finds them.
        heat: The heat map, if the method computes one.
        inverted: Whether the crops show the radiograph's negative, see ``Located``.
    """

    corners: Mapping[Region, Points]
    confidence: float
    fallback: bool
    landmarks: Landmarks | None = None
    heat: HeatMap | None = None
    inverted: bool = False


class RegionLocator(Protocol):
    """Locates the regions of radiographs; safe to call from several threads."""

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """Returns the regions of each radiograph."""
        ...


class KeyPointRegions:
    """Locates regions by key points.

    Args:
        locator: Finds the key points.
    """

    def __init__(self, locator: LandmarkLocator) -> None:
        self.locator = locator

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """Returns the regions of each radiograph."""
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
    """Locates regions at the peaks of an age model's saliency map.

    Args:
        saliency: Computes the heat maps.
        threshold: Minimum heat of a peak.
    """

    def __init__(self, saliency: AgeSaliency, threshold: float = THRESHOLD) -> None:
        self.saliency = saliency
        self.threshold = threshold

    def locate(self, radiographs: Sequence[Radiograph]) -> list[LocatedRegions]:
        """Returns the regions of each radiograph."""
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
