"""Pictures with a heat map of which places determine the predicted age or sex.

The heat is the absolute Grad-CAM value: how much a place adds to the age or subtracts from it. The
positive part alone, which Grad-CAM shows for a class, fails for young hands: the features of a hand
of 24 months subtract 88 months from the mean training age and add 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from boneage_cli.core.explanation.overlay import HeatMap, heat_colours, overlay
from boneage_cli.core.explanation.saliency import grad_cam, onto_radiograph, scaled
from boneage_cli.core.overwriting import check_pictures
from boneage_cli.core.prediction.cases import Prediction
from boneage_cli.core.prediction.output import age_text, doubt_text, sex_text
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.prediction.preparing import SEX_UNKNOWN
from boneage_cli.datasets.names import image_stem
from boneage_cli.errors import BoneageError
from boneage_cli.files import explaining_write_errors, whole_file
from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.png import EXPLANATION, has_note, write_png
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import frame_corners
from boneage_cli.sexes import sex_letter

# Explains the pictures, and marks the folder as one whose pictures may be replaced.
ABOUT = "README.txt"
_ABOUT_TEXT = """\
Where predicted bone ages come from: pictures made by boneage predict --explain.

On the left the radiograph with its contrast stretched, on the right the same with heat.

Heat, from clear to red: how much each place changes the predicted age, up or down (Grad-CAM); red
is the largest change in this radiograph. For models that predict only the sex: how much it changes
the sex. Outlines: what the model crops, with the upper side thicker; green is the carpal region,
yellow the metacarpal region, blue the registered hand. Crosses: the key points that determine the
outlines. Above: the age, and the sex if the model uses it; or the predicted sex. "63% image": in a
model with a gate between image and sex, the share of the image, averaged over the features.

The column "picture" of the table tells which radiograph each picture is of. Each run replaces the
pictures of an earlier one in this folder.

Heat shows where a network looks, not whether it is right. Each picture has its own scale: if an age
is near the mean of the training radiographs, no place changes it much, and the largest change may
lie outside the bones. A research tool, not a medical device.
"""

_OPTION = "place with --explain"
# Height of the line above the picture, pixels.
_TITLE = 24
# Width of the heat's colour scale, pixels.
_SCALE = 90
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Explanation:
    """Explanation of the predicted age or sex of one radiograph.

    Attributes:
        heat: Heat map of the whole radiograph in its true proportions, float32 (H, W) with the
            shorter side 192 pixels; 1 at the maximum, 0 where nothing contributes or lies outside
            the views.
        outlines: Name and corners of each view that is cropped from the registered hand, (4, 2)
            fractions of the radiograph's width and height, starting at the view's top left corner.
        landmarks: The key points that determine the outlines; None if there are none.
        image_share: Share of the image, as opposed to the sex, in the gated features, 0 to 1; None
            if no model has a gate between the two.
    """

    heat: HeatMap
    outlines: tuple[tuple[str, Points], ...]
    landmarks: Landmarks | None
    image_share: float | None = None


class Explainer:
    """Explains the ages of one or several models, or the sexes if none predicts age.

    Args:
        predictor: The models; they are explained as they predict without test-time augmentation.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.target = "age" if predictor.predicts_age else "sex"
        # Gradients need torch, whatever backend runs the predictions.
        self.models = [
            (bundle, bundle.network().to(predictor.device), settings)
            for bundle, settings in zip(predictor.bundles, predictor.view_settings, strict=True)
            if self.target in bundle.experiment.model.targets
        ]

    def explain(self, radiograph: Radiograph, male: bool | None) -> Explanation:
        """Explains the predicted age or sex of a radiograph.

        The maps of a model's views are added up as months per area of the radiograph, so that each
        is weighted as in the age. The maps of several models, each scaled to 0 to 1, are averaged.

        Args:
            radiograph: White bone on black, any size and depth.
            male: The child's sex; None if no model takes it.

        Raises:
            BoneageError: A model takes the sex, and it is unknown.
        """
        if self.predictor.needs_sex and male is None:
            raise BoneageError(f"{radiograph.source}: {SEX_UNKNOWN}")
        renderers = self.predictor.renderers
        located = self.predictor.locate(radiograph)
        seen = {
            settings: (renderer.render(radiograph, located), renderer.frames(radiograph, located))
            for settings, renderer in renderers.items()
        }
        device = self.predictor.device
        heats, gates = [], []
        for bundle, network, settings in self.models:
            views, frames = seen[settings]
            pixels = {
                name: torch.from_numpy(np.array(view))[None, None].to(device)
                for name, view in views.items()
            }
            sex = torch.tensor([float(bool(male))], device=device)
            told = sex if bundle.experiment.model.gender else None
            cams, outputs = grad_cam(network, pixels, told, self.target)
            if "gate" in outputs:
                gates.append(float(outputs["gate"].mean()))
            parts = [
                onto_radiograph(
                    np.abs(cam[0]) * _cells_per_radiograph(cam.shape[1:], frames[name]),
                    settings.shapes[name],
                    frames[name],
                    radiograph,
                )
                for name, cam in cams.items()
            ]
            heats.append(scaled(np.sum(parts, axis=0)))
        outlines = tuple(
            (name, frame_corners(frame))
            for settings, (_, frames) in seen.items()
            for name, frame in frames.items()
            if renderers[settings].is_registered(name)
        )
        landmarks = located.landmarks if located else None
        share = float(np.mean(gates)) if gates else None
        return Explanation(scaled(np.mean(heats, axis=0)), outlines, landmarks, share)

    def draw(self, radiograph: Radiograph, answer: str, male: bool | None = None) -> np.ndarray:
        """Draws a picture that explains the predicted age or sex of a radiograph.

        Args:
            radiograph: White bone on black, any size and depth.
            answer: The prediction as text.
            male: The child's sex; None if no model takes it.

        Returns:
            uint8 (H, W, 3), blue, green, red: a line with the prediction, the sex and the heat's
            colour scale, and below it the radiograph in its true proportions, once without and once
            with heat map, outlines and key points.
        """
        found = self.explain(radiograph, male)
        drawn = overlay(
            radiograph, heat=found.heat, outlines=found.outlines, landmarks=found.landmarks
        )
        picture = np.concatenate([overlay(radiograph), drawn], axis=1)
        title = answer if male is None else f"{answer}, {sex_letter(male)}"
        if found.image_share is not None:
            title += f", {found.image_share:.0%} image"
        return np.concatenate([_title(title, picture.shape[1]), picture])


class Explanations:
    """A folder of pictures, one for each predicted radiograph.

    Pictures are named ``<stem>.png`` after the radiograph; the second of the same name gets ``-2``.
    Pictures of an earlier call are deleted when all new ones are written.

    Args:
        explainer: Draws the pictures.
        folder: The folder; created if missing.
        inputs: Files and folders with the radiographs.

    Attributes:
        pictures: Number of pictures written.
        errors: One line for each radiograph that was predicted but could not be drawn.

    Raises:
        BoneageError: The folder cannot be written, is inside a folder of radiographs, or contains
            files of another program.
    """

    def __init__(self, explainer: Explainer, folder: Path, inputs: Sequence[str] = ()) -> None:
        self.explainer = explainer
        self.folder = folder
        self.pictures = 0
        self.errors: list[str] = []
        self._names: Counter[str] = Counter()
        check_pictures(folder, inputs, _OPTION)
        with explaining_write_errors(folder, _OPTION):
            # Otherwise a picture could replace a radiograph of the same name.
            if folder.is_dir() and any(folder.iterdir()) and not self._is_ours():
                raise BoneageError(
                    f"{folder}: holds files that --explain did not make; choose a new folder"
                )
            with whole_file(folder / ABOUT) as temporary:
                temporary.write_text(_ABOUT_TEXT, encoding="utf-8")

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Draws a picture of each successful prediction, and passes it on with ``picture``.

        The picture exists before its row does, so that a row never names a picture that could not
        be drawn, and readers of a stream can open it at once.

        Raises:
            BoneageError: A picture cannot be written.
        """
        earlier = {path for path in self.folder.glob("*.png") if has_note(path, EXPLANATION)}
        for prediction in predictions:
            path = None if prediction.error is not None else self._draw(prediction)
            if path is None:
                yield prediction
            else:
                earlier.discard(path)
                yield replace(prediction, picture=str(path))
        if self.pictures:
            with explaining_write_errors(self.folder, _OPTION):
                for path in earlier:
                    path.unlink(missing_ok=True)

    def _draw(self, prediction: Prediction) -> Path | None:
        """Writes a prediction's picture; None if its radiograph can no longer be read."""
        try:
            # Read again, because predictions contain no pixels.
            radiograph = prediction.case.read()
        except BoneageError as error:
            self.errors.append(str(error))
            return None
        picture = self.explainer.draw(radiograph, _answer(prediction), prediction.male)
        return self._write(picture, image_stem(prediction.case.path))

    def _write(self, picture: np.ndarray, stem: str) -> Path:
        name = stem
        while self._names[name]:
            self._names[stem] += 1
            name = f"{stem}-{self._names[stem]}"
        self._names[name] += 1
        path = self.folder / f"{name}.png"
        with explaining_write_errors(self.folder, _OPTION):
            write_png(path, picture, EXPLANATION)
        self.pictures += 1
        return path

    def _is_ours(self) -> bool:
        about = self.folder / ABOUT
        first_line = _ABOUT_TEXT.splitlines()[0]
        return about.is_file() and first_line.encode() in about.read_bytes()


def _answer(prediction: Prediction) -> str:
    if prediction.months is not None:
        return age_text(prediction.months) + doubt_text(prediction)
    assert prediction.male_probability is not None
    return sex_text(prediction.male_probability) + doubt_text(prediction)


def _cells_per_radiograph(cells: Sequence[int], frame: Matrix) -> float:
    """Number of a view's feature-map cells that would cover the whole radiograph."""
    return float(np.prod(cells) * abs(np.linalg.det(frame[:, :2])))


def _title(text: str, width: int) -> np.ndarray:
    """Draws white text and the colour scale on black, (24, width, 3); shrinks the text to fit."""
    (length, _), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    size = min(0.5, (width - 12) / length)
    line = np.zeros((_TITLE, width, 3), np.uint8)
    cv2.putText(line, text, (4, 17), _FONT, max(size, 0.1), (255, 255, 255), 1, cv2.LINE_AA)
    _draw_scale(line, from_column=round(size * length) + 8)
    return line


def _draw_scale(line: np.ndarray, from_column: int) -> None:
    """Draws the heat's colour scale at the right end of the title, if there is room."""
    least, most = "heat: none", "most"
    ends = [cv2.getTextSize(text, _FONT, 0.4, 1)[0][0] for text in (least, most)]
    width = line.shape[1]
    right = width - ends[1] - 8
    left = right - _SCALE
    if left - ends[0] - 8 < from_column:
        return
    shares = np.linspace(0, 1, _SCALE, dtype=np.float32)[None].repeat(_TITLE - 12, 0)
    # Blended with black, as the heat is over black pixels.
    line[6:-6, left:right] = np.rint(heat_colours(shares) * shares[:, :, None])
    for text, column in ((least, left - ends[0] - 4), (most, right + 4)):
        cv2.putText(line, text, (column, 16), _FONT, 0.4, (200, 200, 200), 1, cv2.LINE_AA)
