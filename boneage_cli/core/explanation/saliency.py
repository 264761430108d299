"""Where a trained model looks for the age, or for the sex.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the answer at a network's last feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.core.hardware import choose_device
from boneage_cli.core.views import ViewRenderer, view_settings
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import Matrix, aspect_of
from boneage_cli.models.average import AverageNetwork
from boneage_cli.models.network import Network

# Shorter side of the maps of whole radiographs, in which peaks are sought, pixels.
_MAP_SIDE = 192


def grad_cam(
    network: Network | AverageNetwork,
    views: Mapping[str, Tensor],
    male: Tensor | None,
    target: str = "age",
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Tensor]]:
    """What each place of each view adds to the predicted age, or takes from it.

    The last feature maps times the gradient of the age at them. Grad-CAM averages the gradient over
    all places first; with average pooling that is the same but for a factor, while the gradient of
    each place (HiResCAM: Draelos and Carin 2020, arXiv:2011.08891) is also right for attention, GeM
    and flattened maps, which weigh places differently.

    Args:
        network: In evaluation mode.
        views: As ``Network.forward`` takes them.
        male: As ``Network.forward`` takes it.
        target: ``age``, or ``sex`` for what each place adds to the logit of being a boy.

    Returns:
        For each view the months, or parts of the logit, of each cell of its feature maps, (B, h,
        w); and what the network gives, as ``Network.forward`` does.
    """
    with torch.no_grad():
        encoded = network.encode(dict(views))
    with torch.enable_grad():
        maps = [features.detach().requires_grad_() for features in encoded]
        outputs = network.decide(maps, male)
        gradients = torch.autograd.grad(outputs[target].sum(), maps)
    cells = {
        view: (features.detach() * gradient).sum(1).float().cpu().numpy()
        for view, features, gradient in zip(network.views, maps, gradients, strict=True)
    }
    return cells, {name: output.detach() for name, output in outputs.items()}


def onto_radiograph(
    cells: NDArray[np.float32], shape: tuple[int, int], frame: Matrix, radiograph: Radiograph
) -> HeatMap:
    """Lays the map of a view over the radiograph that the view was cut from.

    Args:
        cells: (h, w) over the whole view.
        shape: Height and width of the view, pixels.
        frame: (2, 3), from fractions of the radiograph to fractions of the view.
        radiograph: The radiograph.

    Returns:
        (H, W) over the whole radiograph in its true proportions, with the shorter side 192 pixels;
        0 outside the view.
    """
    aspect = aspect_of(radiograph)
    width, height = (round(_MAP_SIDE * max(side, 1)) for side in (aspect, 1 / aspect))
    rows, columns = shape
    # Cells reach to the view's edges, where their centres do not.
    seen = cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_LINEAR)
    # From the result's pixels, by their centres, to those of the view.
    matrix = frame * ((columns,), (rows,))
    linear, shift = matrix[:, :2] / (width, height), matrix[:, 2]
    heat = cv2.warpAffine(
        seen,
        np.column_stack([linear, shift + linear @ (0.5, 0.5) - 0.5]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return heat.astype(np.float32, copy=False)


def scaled(heat: NDArray[np.float32]) -> HeatMap:
    """Divides a map of 0 and more by its largest value, so that it ends at 1; zeros stay zeros."""
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)


class AgeSaliency:
    """Grad-CAM of the age that a model predicts: the part of it that adds to the age.

    A model that takes the child's sex is asked as for a boy and as for a girl, and the two maps are
    averaged: the place of a bone then hangs on no table.

    Args:
        bundle: A model of the family ``global`` that sees radiographs as they are.
        device: Where it runs.

    Raises:
        BoneageError: The model sees regions, sees registered hands, or predicts no age.
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
        seen = np.stack([self.renderer(radiograph)["hand"] for radiograph in radiographs])
        views = {"hand": torch.from_numpy(seen)[:, None].float().to(self.device)}
        per_sex = [self._added(views, sex) for sex in self.sexes]
        return [
            scaled(
                onto_radiograph(
                    np.mean([scaled(cells) for cells in of_one], axis=0),
                    self.renderer.shapes["hand"],
                    self.renderer.frames(radiograph, None)["hand"],
                    radiograph,
                )
            )
            for *of_one, radiograph in zip(*per_sex, radiographs, strict=True)
        ]

    def _added(self, views: Mapping[str, Tensor], sex: float | None) -> NDArray[np.float32]:
        """The months that each cell adds to each age, (B, h, w)."""
        pixels = views["hand"]
        male = None if sex is None else pixels.new_full((len(pixels),), sex)
        return np.maximum(grad_cam(self.network, views, male)[0]["hand"], 0)
