"""Saliency maps of the predicted age or sex.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the output at the network's last feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.models.average import AverageNetwork
from boneage_cli.models.network import Network

# Shorter side of the heat maps of whole radiographs, pixels.
_MAP_SIDE = 192


def grad_cam(
    network: Network | AverageNetwork,
    views: Mapping[str, Tensor],
    male: Tensor | None,
    target: str = "age",
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Tensor]]:
    """Computes how much each place of each view adds to the predicted age or subtracts from it.

    The result is the last feature maps times the gradient of the age with respect to them. Grad-CAM
    first averages the gradient over all places; with average pooling that differs by a factor only.
    The gradient of each place (HiResCAM: Draelos and Carin 2020, arXiv:2011.08891) is also correct
    for attention, GeM and flattened maps, which weight places differently.

    Args:
        network: The network in evaluation mode.
        views: As in ``Network.forward``.
        male: As in ``Network.forward``.
        target: ``age``, or ``sex`` for the contributions to the logit of being a boy.

    Returns:
        For each view the contribution of each cell of its feature maps, (B, h, w), in months or
        units of the logit; and the network's outputs, as in ``Network.forward``.
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
    """Maps a view's heat map to the radiograph that the view was cropped from.

    Args:
        cells: Heat map of the whole view, (h, w).
        shape: Height and width of the view, pixels.
        frame: Affine matrix, (2, 3), from fractions of the radiograph to fractions of the view.
        radiograph: The radiograph.

    Returns:
        Heat map of the whole radiograph in its true proportions, (H, W), with the shorter side 192
        pixels; 0 outside the view.
    """
    aspect = aspect_of(radiograph)
    width, height = (round(_MAP_SIDE * max(side, 1)) for side in (aspect, 1 / aspect))
    rows, columns = shape
    # Upsamples to the view first, because cells reach to its edges while their centres do not.
    seen = cv2.resize(cells, (columns, rows), interpolation=cv2.INTER_LINEAR)
    # Maps pixel centres of the result to pixels of the view.
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
    """Divides a non-negative map by its maximum; a map of zeros stays zero."""
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)
