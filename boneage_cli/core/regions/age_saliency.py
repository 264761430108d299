"""Heat maps of whole radiographs, from which regions can be placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.core.explanation.saliency import grad_cam, onto_radiograph, scaled
from boneage_cli.core.hardware import choose_device
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph


class AgeSaliency:
    """Grad-CAM of a model's predicted age, its positive part only.

    For a model that takes the child's sex, the maps for a boy and for a girl are averaged, so that
    regions do not depend on the sex in a table.

    Args:
        bundle: A model of the family ``global`` that takes unregistered radiographs.
        device: The device.

    Raises:
        BoneageError: The model takes regions or registered hands, or predicts no age.
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto") -> None:
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
        self.renderer = ViewRenderer(view_settings(experiment))
        self.device = choose_device(device)
        self.network = bundle.network().to(self.device)
        self.sexes = (0.0, 1.0) if experiment.model.gender else (None,)

    def heat_maps(self, radiographs: Sequence[Radiograph]) -> list[HeatMap]:
        """Computes the heat map of each radiograph.

        Args:
            radiographs: White bone on black, any size and depth.

        Returns:
            For each a heat map of the whole radiograph in its true proportions, float32 (H, W) with
            the shorter side 192 pixels; 1 at the maximum, 0 where nothing adds to the age or lies
            outside the view.
        """
        if not radiographs:
            return []
        seen = np.stack([self.renderer(radiograph)["hand"] for radiograph in radiographs])
        views = {"hand": torch.from_numpy(seen)[:, None].float().to(self.device)}
        per_sex = [self._added(views, sex) for sex in self.sexes]
        return [
            scaled(
                onto_radiograph(
                    np.mean([scaled(cells) for cells in of_one], axis=0),
                    self.renderer.settings.shapes["hand"],
                    self.renderer.frames(radiograph, None)["hand"],
                    radiograph,
                )
            )
            for *of_one, radiograph in zip(*per_sex, radiographs, strict=True)
        ]

    def _added(self, views: Mapping[str, Tensor], sex: float | None) -> NDArray[np.float32]:
        """Months that each cell adds to each age, at least 0, (B, h, w)."""
        pixels = views["hand"]
        male = None if sex is None else pixels.new_full((len(pixels),), sex)
        return np.maximum(grad_cam(self.network, views, male)[0]["hand"], 0)
