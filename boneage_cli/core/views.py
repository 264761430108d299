"""From one radiograph to the views of the hand that a network sees.

Training, validation, evaluate and predict all render through here, so their pixels are the same.
"""

from __future__ import annotations

import numpy as np

from boneage_cli.core.config import Experiment, Section
from boneage_cli.imaging.preprocessing import Preprocessing, preprocess
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.models.families import FAMILIES

# For each view, uint8 (H, W).
Rendered = dict[str, np.ndarray]


class ViewSettings(Section):
    """What decides the pixels of every view; models with equal ones share their pixels."""

    names: tuple[str, ...]
    preprocessing: Preprocessing


class ViewRenderer:
    """Renders the views of one radiograph.

    Args:
        experiment: The settings of the model that will see them.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.settings = ViewSettings(
            names=FAMILIES[experiment.model.family], preprocessing=experiment.preprocessing
        )

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each view, pixels."""
        preprocessing = self.settings.preprocessing
        return dict.fromkeys(self.settings.names, (preprocessing.height, preprocessing.width))

    @property
    def key(self) -> str:
        """Text that is equal only where the same radiograph gives the same pixels."""
        return self.settings.model_dump_json()

    def __call__(self, radiograph: Radiograph) -> Rendered:
        """The views of a radiograph, each uint8 of its shape."""
        return {"hand": preprocess(radiograph, self.settings.preprocessing)}
