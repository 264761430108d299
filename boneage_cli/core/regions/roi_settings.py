"""Settings of locating and cropping regions, and the locator that they choose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from boneage_cli.choices import RoiMethod
from boneage_cli.code_digest import IMAGING, code_digest
from boneage_cli.core.bundle import load_bundle
from boneage_cli.core.landmarks import CODE as LOCATING
from boneage_cli.core.landmarks import SHIPPED, LandmarkLocator
from boneage_cli.core.regions.locators import KeyPointRegions, RegionLocator, SalientPeaks
from boneage_cli.core.regions.salient_regions import THRESHOLD
from boneage_cli.core.runs import BUNDLE
from boneage_cli.errors import BoneageError
from boneage_cli.imaging.registration import REGIONS

_CODE = (
    IMAGING,
    Path(__file__).parent,
    # The heat maps also depend on the network's code and on the views.
    Path(__file__).parents[1] / "explanation",
    *(Path(__file__).parents[1] / name for name in ("bundle.py", "views.py")),
    Path(__file__).parents[2] / "models",
    *LOCATING,
)


@dataclass(frozen=True)
class RoiSettings:
    """Settings of locating and cropping regions.

    Attributes:
        method: ``keypoints``: three key points place both regions in the registered hand, whatever
            its rotation, mirrored or not (Iglovikov et al. 2018). ``gradcam``: squares at the peaks
            of an age model's saliency map (HDA_Project).
        size: Side of the crops, pixels.
        background_removed: Whether everything but the hand becomes black; keypoints only.
        heatmap_threshold: Minimum heat of a peak, relative to the map's maximum; gradcam only.
        model: The age model for gradcam, a bundle or run folder; or a key-point bundle other than
            the package's.
    """

    method: RoiMethod = "keypoints"
    size: int = 192
    background_removed: bool = True
    heatmap_threshold: float = THRESHOLD
    model: Path | None = None

    def __post_init__(self) -> None:
        if self.method == "gradcam" and self.model is None:
            raise BoneageError(
                "--method gradcam: name with --model a global model that sees radiographs as they "
                "are (the package's sees registered hands)"
            )
        if self.method == "gradcam" and self.background_removed:
            raise BoneageError(
                "--background remove: the outline of the hand is sought from its key points; take "
                "--method keypoints, or --background keep"
            )

    @property
    def model_file(self) -> Path:
        """The file with the network that places the regions."""
        if self.model is None:
            return SHIPPED
        return self.model / BUNDLE if self.model.is_dir() else self.model

    def describe(self) -> dict[str, object]:
        """Returns everything that affects the crops of an image, as JSON values.

        Raises:
            BoneageError: The model cannot be read.
        """
        try:
            digest = hashlib.sha256(self.model_file.read_bytes()).hexdigest()
        except OSError as error:
            raise BoneageError(
                f"{self.model_file}: cannot be read ({error.strerror}); name a model with --model"
            ) from None
        own: dict[str, object] = (
            {"background_removed": self.background_removed, "regions": REGIONS}
            if self.method == "keypoints"
            else {"heatmap_threshold": self.heatmap_threshold}
        )
        return {
            "code_sha256": code_digest(*_CODE),
            "method": self.method,
            "size": self.size,
            **own,
            "model_sha256": digest,
        }


def region_locator(settings: RoiSettings, device: str = "auto") -> RegionLocator:
    """Loads the locator that the settings choose.

    Raises:
        BoneageError: The model cannot be read or does not fit the method.
    """
    if settings.method == "keypoints":
        return KeyPointRegions(LandmarkLocator.load(settings.model_file, device=device))
    # Imported here because it needs torch, whose import takes seconds.
    from boneage_cli.core.regions.age_saliency import AgeSaliency

    saliency = AgeSaliency(load_bundle(settings.model_file), device=device)
    return SalientPeaks(saliency, settings.heatmap_threshold)
