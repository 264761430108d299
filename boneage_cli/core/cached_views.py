"""The views of a data set's radiographs, from the disk cache or rendered now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from boneage_cli.code_digest import code_digest
from boneage_cli.core.views import Rendered, ViewRenderer
from boneage_cli.datasets.cache import cached_pixels
from boneage_cli.datasets.manifest import true_aspects
from boneage_cli.imaging.degradation import degrade
from boneage_cli.imaging.reading import read_radiograph


def view_pixels(
    manifest: pd.DataFrame, renderer: ViewRenderer, cache: Path, degraded: int | None = None
) -> Rendered:
    """Returns the views of each row, from the cache or rendered now.

    Args:
        manifest: The n rows.
        renderer: Renders the views.
        cache: Folder of the cache.
        degraded: Seed for degraded copies, see ``degrade``; None for the radiographs themselves.

    Returns:
        Per view uint8 (n, H, W).

    Raises:
        BoneageError: An image cannot be read.
    """
    paths = manifest["path"].tolist()
    aspects = true_aspects(manifest)

    def render(row: int) -> Rendered:
        radiograph = read_radiograph(paths[row], aspect=aspects[row])
        if degraded is None:
            return renderer(radiograph)
        copy = degrade(radiograph, np.random.default_rng([degraded, row]))
        located = renderer.locate(copy)
        # If no hand is found in the copy, the original is used: the copy would not help training.
        lost = located is not None and located.fallback
        return renderer(radiograph) if lost else renderer.render(copy, located)

    key = f"{renderer.key} {aspects} {code_digest(Path(__file__))}"
    if degraded is not None:
        key += f" degraded {degraded}"
    return cached_pixels(paths, render, shapes=renderer.settings.shapes, key=key, folder=cache)
