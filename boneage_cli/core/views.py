"""Renders the views of the hand that a network sees from a radiograph.

Training, validation, evaluate and predict all use this module, so their pixels are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from boneage_cli.code_digest import code_digest
from boneage_cli.core.config import Experiment, RegionSettings
from boneage_cli.core.landmarks import CODE as LOCATING
from boneage_cli.core.landmarks import SHIPPED, LandmarkLocator, Located
from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.preprocessing import Preprocessing, geometry, preprocess, softness
from boneage_cli.imaging.radiograph import Radiograph, negative
from boneage_cli.imaging.registration import (
    Region,
    frame_from_image,
    region_box,
    registered_mask,
    render_region,
)
from boneage_cli.models.families import FAMILIES
from boneage_cli.settings_section import Section

_CODE = (Path(__file__), *LOCATING)

# Pixels by view, uint8 (H, W) each.
Rendered = dict[str, np.ndarray]


class ViewSettings(Section):
    """The settings that affect the views' pixels; models with equal settings share the pixels."""

    names: tuple[str, ...]
    preprocessing: Preprocessing
    # None if no view is cropped by key points.
    regions: RegionSettings | None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width of each view, pixels."""
        hand = (self.preprocessing.height, self.preprocessing.width)
        part = (self.regions.height, self.regions.width) if self.regions else hand
        return {name: hand if name == "hand" else part for name in self.names}


class ViewRenderer:
    """Renders the views of one radiograph.

    The shipped key-point network locates the regions, which are registered to one pose and cropped.

    Args:
        settings: The model's settings of views.
        locator: The key-point network; None to load it if the views need it.
    """

    def __init__(self, settings: ViewSettings, locator: LandmarkLocator | None = None) -> None:
        self.settings = settings
        self.locator = locator
        if settings.regions is None:
            self.locator = None
        elif locator is None:
            self.locator = LandmarkLocator.load()

    @property
    def key(self) -> str:
        """Cache key: equal keys guarantee equal pixels for the same radiograph.

        It does not cover the code in ``imaging``, which ``cached_pixels`` adds.
        """
        locator = hashlib.sha256(SHIPPED.read_bytes()).hexdigest() if self.locator else ""
        return self.settings.model_dump_json() + locator + code_digest(*_CODE)

    def __call__(self, radiograph: Radiograph) -> Rendered:
        """Renders the views of a radiograph, each uint8 of its shape."""
        return self.render(radiograph, self.locate(radiograph))

    def locate(self, radiograph: Radiograph) -> Located | None:
        """Returns the key points that the views are cropped by; None if they need none."""
        return None if self.locator is None else self.locator.locate([radiograph])[0]

    def render(self, radiograph: Radiograph, located: Located | None) -> Rendered:
        """Renders the views of a radiograph whose key points are known.

        Args:
            radiograph: White bone on black.
            located: The result of ``locate``; the same for all renderers.

        Returns:
            Each view, uint8 of its shape.
        """
        regions = self.settings.regions
        radiograph = _white_on_black(radiograph, located)
        if regions is None or located is None:
            return {"hand": preprocess(radiograph, self.settings.preprocessing)}
        mask = (
            registered_mask(radiograph, located.landmarks) if regions.background_removed else None
        )
        views = {}
        for name, (height, width) in self.settings.shapes.items():
            if not self.is_registered(name):
                views[name] = preprocess(radiograph, self.settings.preprocessing)
                continue
            cut = render_region(
                radiograph,
                located.landmarks,
                cast(Region, name),
                height,
                width,
                mask=mask,
                softness=softness(radiograph, self.settings.preprocessing),
                rounded=False,
            )
            # Contrast and CLAHE apply to regions, too; their size is already right.
            views[name] = preprocess(
                Radiograph(cut, source=radiograph.source),
                self.settings.preprocessing.model_copy(
                    update={"height": height, "width": width, "foreground": False, "rows": 0}
                ),
            )
        return views

    def frames(self, radiograph: Radiograph, located: Located | None) -> dict[str, Matrix]:
        """Returns the position of each view in a radiograph.

        Returns:
            For each view an affine matrix, (2, 3), from fractions of the radiograph's width and
            height to fractions of the view's.
        """
        frames = {}
        radiograph = _white_on_black(radiograph, located)
        for name, (height, width) in self.settings.shapes.items():
            if located is not None and self.is_registered(name):
                box = region_box(cast(Region, name), width / height)
                frames[name] = frame_from_image(radiograph, located.landmarks, box)
            else:
                frames[name] = geometry(radiograph, self.settings.preprocessing).frame
        return frames

    def is_registered(self, view: str) -> bool:
        """Whether a view is cropped from the registered hand, by the key points."""
        regions = self.settings.regions
        return regions is not None and (view != "hand" or regions.registered_hand)


def view_settings(experiment: Experiment) -> ViewSettings:
    """The settings of an experiment that affect its views."""
    names = FAMILIES[experiment.model.family]
    registered = experiment.regions.registered_hand or names != ("hand",)
    return ViewSettings(
        names=names,
        preprocessing=experiment.preprocessing,
        regions=experiment.regions if registered else None,
    )


def _white_on_black(radiograph: Radiograph, located: Located | None) -> Radiograph:
    return negative(radiograph) if located is not None and located.inverted else radiograph


def shapes_of(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Height and width of each view that an experiment's model sees, pixels."""
    return view_settings(experiment).shapes


def describe_shapes(shapes: Mapping[str, tuple[int, int]]) -> str:
    """Formats the views' sizes as ``256 × 224``, joined by `` + ``."""
    return " + ".join(f"{height} × {width}" for height, width in shapes.values())
