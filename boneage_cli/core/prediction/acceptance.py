"""What is no whole hand, and gets a reason instead of an age, by the key points of a radiograph.

What is unlike all that a model was trained on tells its ``Likeness``.
"""

from __future__ import annotations

import numpy as np

from boneage_cli.core.landmarks import Located
from boneage_cli.imaging.landmarks import Points
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import aspect_of, canonical_from_image

# Below this the key-point network is not sure of a hand. Of 600 radiographs of RSNA's that it was
# not trained on 99.5 % have more than 0.98; 33 photographs, textures and other scans have 0.89 at
# most.
SURE = 0.92
# Between the middle fingertip and the end of the image, in hand lengths; the network puts the tips
# of cut fingers beyond it. Of 600 whole hands 0.2 % have less; of 200 that lack an eighth of their
# length 99.5 %.
LEAST_ABOVE_FINGERTIP = -0.02
# The same from the capitate's centre down the forearm: the epiphysis of the radius ends there.
LEAST_BELOW_CAPITATE = 0.14
# Where the thumb's tip is in registered hands: of 1,563 marked by hand at 0.23 to 0.73 and -1.09 to
# -0.11.
_THUMB = np.array(((0.13, -1.15), (0.83, -0.03)))


def reason_of_key_points(radiograph: Radiograph, located: Located) -> str | None:
    """Why key points speak against a whole hand: a code of ``cases.REASONS``, or None."""
    aspect = aspect_of(radiograph)
    if located.confidence < SURE or located.fallback:
        return "no-hand"
    matrix = canonical_from_image(located.landmarks, aspect)
    thumb = matrix[:, :2] @ located.landmarks.array()[1] + matrix[:, 2]
    if not ((_THUMB[0] <= thumb) & (thumb <= _THUMB[1])).all():
        return "no-hand"
    # From within the finger, whose tip may lie outside.
    above = _room(matrix, np.array((0.0, -0.8)), np.array((0.0, -1.0))) - 0.2
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
