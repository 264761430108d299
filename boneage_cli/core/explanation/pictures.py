"""Pictures of where in a radiograph the predicted age comes from, or the predicted sex.

The heat is the size of what each place adds to the age or takes from it, by Grad-CAM. The part that
adds alone, which is what Grad-CAM shows of a class, hides young hands: the features of a hand of 24
months take 88 months from the mean age of the training and add 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from boneage_cli.core.explanation.overlay import HeatMap, heat_colours, overlay
from boneage_cli.core.explanation.saliency import grad_cam, onto_radiograph, scaled
from boneage_cli.core.prediction.cases import Prediction
from boneage_cli.core.prediction.inputs import check_pictures
from boneage_cli.core.prediction.output import age_text, doubt_text, sex_text
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.prediction.preparing import SEX_UNKNOWN
from boneage_cli.datasets.dialects import image_stem
from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file, writing
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.png import EXPLANATION, has_note, write_png
from boneage_cli.imaging.radiograph import Radiograph
from boneage_cli.imaging.registration import Matrix, frame_corners
from boneage_cli.sexes import sex_letter

# Tells how to read the pictures, and marks the folder as one whose pictures may be replaced.
ABOUT = "README.txt"
_ABOUT_TEXT = """\
Where predicted bone ages come from: pictures made by boneage predict --explain.

On the left the radiograph with its contrast stretched, on the right the same with heat.

Heat, from clear to red: how much a place adds to the age or takes from it (Grad-CAM), red where it
is most in this radiograph; of models that predict sex alone, the same of the sex. Outlines: what
the model cuts out, with its upper side thicker; green is the carpal region, yellow the metacarpal
one, blue the registered hand. Crosses: the key points that the outlines follow from. Above: the
age, and the sex where the model takes it; or the predicted sex. "63% image": in a model with a gate
between image and sex so much of what it decides on is the image's, on average over its features.

Each run puts its pictures in place of those that an earlier one left here.

Heat tells where a network looks, not whether it is right. Its scale is that of each picture: where
an age is near the mean of the training, little is added or taken anywhere, and what is most may lie
on nothing. A research tool, not a medical device.
"""

_OPTION = "place with --explain"
# Height of the line above the picture, pixels.
_TITLE = 24
# Length of the scale of the heat, pixels.
_SCALE = 90
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Explanation:
    """Where the age or sex of one radiograph comes from.

    Attributes:
        heat: Over the whole radiograph in its true proportions, float32 (H, W) with the shorter
            side 192 pixels; 1 at the hottest place, 0 where nothing counts or no model looks.
        outlines: The name and corners of each view that is cut from the registered hand, (4, 2)
            fractions of the radiograph's width and height, from what becomes its top left corner.
        landmarks: The key points that those follow from; None where there are none.
        image_share: How much of the features that are decided on comes from the image, 0 to 1, and
            not from the sex; None where no model has a gate between the two.
    """

    heat: HeatMap
    outlines: tuple[tuple[str, Points], ...]
    landmarks: Landmarks | None
    image_share: float | None = None


class Explainer:
    """Explains the ages of one or several models, or the sexes where none predicts age.

    Args:
        predictor: The models, which are asked as they predict, but for mirrored and turned views.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.target = "age" if predictor.predicts_age else "sex"
        # Gradients are torch's business, whatever runs the predictions.
        self.models = [
            (bundle, bundle.network().to(predictor.device), settings)
            for bundle, settings in zip(predictor.bundles, predictor.view_settings, strict=True)
            if self.target in bundle.experiment.model.targets
        ]

    def explain(self, radiograph: Radiograph, male: bool | None) -> Explanation:
        """Where the age or sex of a radiograph comes from.

        In the radiograph the views of a model are added up as months per area, so that each counts
        as much as it does in the age; of several models the maps, each from 0 to 1, are averaged.

        Args:
            radiograph: White bone on black, any size and depth.
            male: The child's sex; None where no model takes it.

        Raises:
            BoneageError: A model takes the sex, and it is not known.
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
                    renderers[settings].shapes[name],
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
        """A picture of where the age or sex of a radiograph comes from.

        Args:
            radiograph: White bone on black, any size and depth.
            answer: What was predicted, in words.
            male: The child's sex; None where no model takes it.

        Returns:
            uint8 (H, W, 3), blue, green, red: a line with the answer, the sex and the scale of the
            heat, and below it the radiograph in its true proportions, once as it is and once with
            heat, outlines and key points.
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
    """A folder of pictures, one for each radiograph that is predicted.

    Pictures are called ``<stem>.png`` after the radiograph; of two with one name the second gets
    ``-2``. Those of an earlier call go when all of this one's are there.

    Args:
        explainer: What draws them.
        folder: Where they go; made where it is missing.
        inputs: Files and folders with the radiographs.

    Attributes:
        pictures: How many were written.
        errors: One line for each radiograph that was predicted but could not be drawn.

    Raises:
        BoneageError: The folder cannot be written, lies in a folder of radiographs, or holds files
            of another program.
    """

    def __init__(self, explainer: Explainer, folder: Path, inputs: Sequence[str] = ()) -> None:
        self.explainer = explainer
        self.folder = folder
        self.pictures = 0
        self.errors: list[str] = []
        self._names: Counter[str] = Counter()
        check_pictures(folder, inputs, _OPTION)
        with writing(folder, _OPTION):
            # A radiograph of the same name must never be replaced by its picture.
            if folder.is_dir() and any(folder.iterdir()) and not self._is_ours():
                raise BoneageError(
                    f"{folder}: holds files that --explain did not make; choose a new folder"
                )
            with whole_file(folder / ABOUT) as temporary:
                temporary.write_text(_ABOUT_TEXT, encoding="utf-8")

    def watch(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Passes predictions on, and draws each radiograph that has one.

        Raises:
            BoneageError: A picture cannot be written.
        """
        earlier = {path for path in self.folder.glob("*.png") if has_note(path, EXPLANATION)}
        for prediction in predictions:
            yield prediction
            if prediction.error is not None:
                continue
            try:
                # Read again, as predictions carry no pixels.
                radiograph = prediction.case.read()
            except BoneageError as error:
                self.errors.append(str(error))
                continue
            picture = self.explainer.draw(radiograph, _answer(prediction), prediction.male)
            earlier.discard(self._write(picture, image_stem(prediction.case.path)))
        if self.pictures:
            with writing(self.folder, _OPTION):
                for path in earlier:
                    path.unlink(missing_ok=True)

    def _write(self, picture: np.ndarray, stem: str) -> Path:
        name = stem
        while self._names[name]:
            self._names[stem] += 1
            name = f"{stem}-{self._names[stem]}"
        self._names[name] += 1
        path = self.folder / f"{name}.png"
        with writing(self.folder, _OPTION):
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
    """How many of a view's cells would cover the whole radiograph."""
    return float(np.prod(cells) * abs(np.linalg.det(frame[:, :2])))


def _title(text: str, width: int) -> np.ndarray:
    """A line of white text on black, (24, width, 3), made small where it is long."""
    (length, _), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    size = min(0.5, (width - 12) / length)
    line = np.zeros((_TITLE, width, 3), np.uint8)
    cv2.putText(line, text, (4, 17), _FONT, max(size, 0.1), (255, 255, 255), 1, cv2.LINE_AA)
    _draw_scale(line, from_column=round(size * length) + 8)
    return line


def _draw_scale(line: np.ndarray, from_column: int) -> None:
    """The colours of the heat, from none to most, at the end of a line that has room for them."""
    least, most = "heat: none", "most"
    ends = [cv2.getTextSize(text, _FONT, 0.4, 1)[0][0] for text in (least, most)]
    width = line.shape[1]
    right = width - ends[1] - 8
    left = right - _SCALE
    if left - ends[0] - 8 < from_column:
        return
    shares = np.linspace(0, 1, _SCALE, dtype=np.float32)[None].repeat(_TITLE - 12, 0)
    # As over black bone.
    line[6:-6, left:right] = np.rint(heat_colours(shares) * shares[:, :, None])
    for text, column in ((least, left - ends[0] - 4), (most, right + 4)):
        cv2.putText(line, text, (column, 16), _FONT, 0.4, (200, 200, 200), 1, cv2.LINE_AA)
