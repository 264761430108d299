"""Three key points of a hand: tips of the middle finger and the thumb, centre of the capitate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

LANDMARK_NAMES = ("middle_tip", "thumb_tip", "capitate")


@dataclass(frozen=True)
class Landmarks:
    """The key points of one hand as (x, y), fractions of the image's width and height.

    They determine the rotation, size and mirroring of a hand (Iglovikov et al. 2018, "Paediatric
    bone age assessment using deep convolutional neural networks").

    Attributes:
        middle_tip: Tip of the middle finger, on the skin.
        thumb_tip: Tip of the thumb, on the skin.
        capitate: Centre of the capitate, or of its site in the wrist if it has not ossified yet.
    """

    middle_tip: tuple[float, float]
    thumb_tip: tuple[float, float]
    capitate: tuple[float, float]

    @classmethod
    def from_array(cls, points: Points) -> Landmarks:
        """Makes landmarks from the rows of a (3, 2) array in the order of ``LANDMARK_NAMES``."""
        middle_tip, thumb_tip, capitate = ((float(x), float(y)) for x, y in points)
        return cls(middle_tip, thumb_tip, capitate)

    def array(self) -> Points:
        """Returns the points as rows in the order of ``LANDMARK_NAMES``, shape (3, 2)."""
        return np.array([self.middle_tip, self.thumb_tip, self.capitate], np.float64)

    def in_units(self, aspect: float) -> Points:
        """Returns the points in heights of the image on both axes, shape (3, 2).

        Args:
            aspect: Width of the image divided by its height, as it was taken.
        """
        return self.array() * (aspect, 1.0)

    def hand_length(self, aspect: float) -> float:
        """Returns the distance from capitate to middle fingertip, in heights of the image."""
        middle_tip, _, capitate = self.in_units(aspect)
        return float(np.linalg.norm(middle_tip - capitate))

    def is_mirrored(self, aspect: float) -> bool:
        """Whether the thumb is to the left of the middle finger when the fingers point upwards.

        In a left hand seen from the back, as bone-age radiographs are taken, it is to the right.
        """
        middle_tip, thumb_tip, capitate = self.in_units(aspect)
        finger, thumb = middle_tip - capitate, thumb_tip - capitate
        return bool(finger[0] * thumb[1] - finger[1] * thumb[0] < 0)
