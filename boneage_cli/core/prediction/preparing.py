"""Prepares radiographs for the models: reading, key points, cropping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boneage_cli.core.bundle import Bundle
from boneage_cli.core.landmarks import LandmarkLocator, Located
from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.refusals import has_another_hand, is_blank, reason_of_key_points
from boneage_cli.core.runtime import is_on_disk
from boneage_cli.core.views import Rendered, ViewRenderer, ViewSettings, view_settings
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.reading import NoImageError
from boneage_cli.sexes import male_of, sex_letter

SEX_UNKNOWN = "sex unknown: name it in a table (column sex); --sex would apply to all files"

Pixels = dict[ViewSettings, Rendered]
"""Views of one radiograph, or stacked views of several, by the models' settings of views."""


class Prepared(NamedTuple):
    """A radiograph ready for the networks, or the reason why there is no prediction.

    Attributes:
        known: What is known before the networks run, perhaps with an error, or with the reason why
            the image should be refused.
        pixels: The models' views; None if there is an error.
    """

    known: Prediction
    pixels: Pixels | None


class Preparer:
    """Renders the models' views of radiographs, without the models' networks.

    Args:
        bundles: The models.
        device: Device of the key-point network, as returned by ``choose_device``.
        backend: Backend of the key-point network, if ``torch`` or ``openvino``; else ``auto``.

    Attributes:
        mark: Callback for benchmarks, called with ``reading``, ``read`` and ``rendered`` at these
            points, and by a predictor with ``passing`` and ``passed``; does nothing by default.
    """

    def __init__(
        self, bundles: Sequence[Bundle], device: str = "cpu", backend: str = "auto"
    ) -> None:
        self.mark: Callable[[str], None] = _unmarked
        self.bundles = list(bundles)
        self.needs_sex = any(bundle.needs_sex for bundle in bundles)
        # A model trained on girls only cannot predict boys.
        self.only_sexes = {bundle.experiment.data.sex for bundle in bundles} - {"both"}
        self.view_settings = [view_settings(bundle.experiment) for bundle in bundles]
        needs_locator = any(settings.regions is not None for settings in self.view_settings)
        # The other backends serve only to compare age networks.
        backend = backend if backend in ("torch", "openvino") else "auto"
        self.locator = (
            LandmarkLocator.load(device=device, backend=backend) if needs_locator else None
        )
        # Models with equal settings of views share the pixels; all share the key points.
        self.renderers = {
            settings: ViewRenderer(settings, self.locator)
            for settings in dict.fromkeys(self.view_settings)
        }

    @property
    def _locator_travels(self) -> bool:
        """Whether worker processes can load the key-point network without converting it."""
        return self.locator is None or is_on_disk(self.locator.run)

    def prepare(self, case: Case) -> Prepared:
        """Reads a radiograph and renders its views; errors are returned, not raised."""
        self.mark("reading")
        try:
            radiograph = case.read()
            male = radiograph.male if case.male is None else case.male
            known = Prediction(
                case,
                None,
                male if self.needs_sex else None,
                stated=radiograph.male,
                age=radiograph.age if case.age is None else case.age,
                age_doubt=radiograph.age_doubt,
                laterality=radiograph.laterality,
                tags=radiograph.tags,
            )
            if self.needs_sex and male is None:
                return Prepared(replace(known, error=SEX_UNKNOWN, reason="sex-unknown"), None)
            if self.never_saw(male):
                return Prepared(replace(known, error=self.of_one_sex, reason="other-sex"), None)
            pixels, reason = self.see(radiograph)
            return Prepared(replace(known, reason=reason), pixels)
        except NoImageError as error:
            return Prepared(_unread(case, error, "no-image"), None)
        except BoneageError as error:
            if case.error is not None:
                return Prepared(Prediction(case, None, error=case.error, reason="bad-input"), None)
            return Prepared(_unread(case, error, "unreadable"), None)

    def locate(self, radiograph: Radiograph) -> Located | None:
        """Returns the key points of a radiograph's hand; None if no model needs them."""
        self.mark("read")
        return None if self.locator is None else self.locator.locate([radiograph])[0]

    def render(self, radiograph: Radiograph) -> Pixels:
        """Renders a radiograph's views for each of the models' settings."""
        return self._render(radiograph, self.locate(radiograph))

    def see(self, radiograph: Radiograph) -> tuple[Pixels, str | None]:
        """Renders a radiograph's views, and returns why it should be refused, or None."""
        located, reason = self.locate(radiograph), None
        if is_blank(radiograph):
            return self._render(radiograph, located), "no-hand"
        if located is not None and self.locator is not None:
            reason = reason_of_key_points(radiograph, located)
            if reason is None and has_another_hand(radiograph, located, self.locator):
                reason = "two-hands"
        return self._render(radiograph, located), reason

    def never_saw(self, male: bool | None) -> bool:
        """Whether a model was trained on the other sex only."""
        return male is not None and bool(self.only_sexes - {sex_letter(male)})

    @property
    def only_male(self) -> bool | None:
        """The sex of the models trained on one sex only; None if there are none, or of both."""
        return male_of(next(iter(self.only_sexes))) if len(self.only_sexes) == 1 else None

    @property
    def of_one_sex(self) -> str:
        """Error message for a radiograph of the sex that a model was not trained on."""
        sexes = " and of ".join(
            "girls" if sex == "F" else "boys" for sex in sorted(self.only_sexes)
        )
        return f"a model of {sexes} alone (data.sex); choose another --model"

    def _render(self, radiograph: Radiograph, located: Located | None) -> Pixels:
        pixels = {
            settings: renderer.render(radiograph, located)
            for settings, renderer in self.renderers.items()
        }
        self.mark("rendered")
        return pixels


def _unread(case: Case, error: BoneageError, reason: str) -> Prediction:
    """Returns what is known of a child whose radiograph cannot be read."""
    # Imported here because pydicom takes a quarter of a second to import.
    from boneage_cli.imaging.dicom import read_header

    header = read_header(case.path, case.tags)
    return Prediction(
        case,
        None,
        # The row has the path in a column of its own.
        error=str(error).removeprefix(f"{Path(case.path)}: "),
        stated=header.male,
        age=header.age if case.age is None else case.age,
        age_doubt=header.age_doubt,
        reason=reason,
        laterality=header.laterality,
        tags=header.tags,
    )


def _unmarked(name: str) -> None:
    """Ignores a mark."""
