"""Perturbations of a radiograph that occur in practice, as applied by ``evaluate --stress``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from boneage_cli.imaging.perturbations import (
    add_frame,
    add_letter,
    add_noise,
    add_text_box,
    apply_gamma,
    as_16_bit_png,
    as_dicom,
    as_jpeg,
    as_negative_png,
    blur,
    brighten,
    cut,
    mirror,
    reduce_to,
    scale_contrast,
    turn,
    turn_quarters,
)
from boneage_cli.imaging.radiograph import Radiograph


@dataclass(frozen=True)
class Perturbation:
    """A change to a radiograph that occurs in practice.

    Attributes:
        name: Name in tables.
        group: One of pose, exposure, sharpness, frame and file.
        what: One sentence that describes the change and where such images come from.
        change: Returns a changed copy of a radiograph, or the same object if nothing changes.
    """

    name: str
    group: str
    what: str
    change: Callable[[Radiograph], Radiograph]


PERTURBATIONS = (
    Perturbation(
        "turned 10°",
        "pose",
        "Turned to the left by 10°, as hands lie askew on the detector.",
        partial(turn, degrees=10),
    ),
    Perturbation(
        "turned 20°",
        "pose",
        "Turned to the left by 20°, more askew than most hands lie.",
        partial(turn, degrees=20),
    ),
    Perturbation(
        "turned 90°",
        "pose",
        "Turned to the left by 90°, as scanners and viewers save sideways.",
        partial(turn_quarters, quarters=1),
    ),
    Perturbation(
        "turned 180°",
        "pose",
        "Upside down, as a hand taken from the other side of the table is.",
        partial(turn_quarters, quarters=2),
    ),
    Perturbation(
        "turned 270°",
        "pose",
        "Turned to the right by 90°.",
        partial(turn_quarters, quarters=3),
    ),
    Perturbation(
        "mirrored",
        "pose",
        "Left and right exchanged, as for a right hand or a film scanned from behind.",
        mirror,
    ),
    Perturbation(
        "darker",
        "exposure",
        "10 % of full white taken away: another exposure or window.",
        partial(brighten, by=-0.10),
    ),
    Perturbation(
        "much darker",
        "exposure",
        "25 % of full white taken away, which hides faint tissue.",
        partial(brighten, by=-0.25),
    ),
    Perturbation(
        "brighter",
        "exposure",
        "10 % of full white added: another exposure or window.",
        partial(brighten, by=0.10),
    ),
    Perturbation(
        "much brighter",
        "exposure",
        "25 % of full white added, which leaves the background gray.",
        partial(brighten, by=0.25),
    ),
    Perturbation(
        "less contrast",
        "exposure",
        "Differences from the mean halved: a wide window or a faded film.",
        partial(scale_contrast, factor=0.5),
    ),
    Perturbation(
        "more contrast",
        "exposure",
        "Differences from the mean half as large again: a narrow window.",
        partial(scale_contrast, factor=1.5),
    ),
    Perturbation(
        "gamma 0.6",
        "exposure",
        "Middle grays brightened by a gamma of 0.6: another detector's curve.",
        partial(apply_gamma, exponent=0.6),
    ),
    Perturbation(
        "gamma 1.7",
        "exposure",
        "Middle grays darkened by a gamma of 1.7: another detector's curve.",
        partial(apply_gamma, exponent=1.7),
    ),
    Perturbation(
        "blurred",
        "sharpness",
        "Gaussian blur of 0.3 % of the longer side: a coarse screen, or slight movement.",
        partial(blur, sigma=0.003),
    ),
    Perturbation(
        "much blurred",
        "sharpness",
        "Gaussian blur of 0.6 % of the longer side: a photograph out of focus.",
        partial(blur, sigma=0.006),
    ),
    Perturbation(
        "512 pixels high",
        "sharpness",
        "Reduced to 512 pixels of height, as teaching files are.",
        partial(reduce_to, height=512),
    ),
    Perturbation(
        "256 pixels high",
        "sharpness",
        "Reduced to 256 pixels of height, as data sets for training are.",
        partial(reduce_to, height=256),
    ),
    Perturbation(
        "128 pixels high",
        "sharpness",
        "Reduced to 128 pixels of height, a thumbnail.",
        partial(reduce_to, height=128),
    ),
    Perturbation(
        "noise",
        "sharpness",
        "Gaussian noise of 8 % of full white, a 512th of the height in grain: a low dose.",
        partial(add_noise, deviation=0.08),
    ),
    Perturbation(
        "cut all around",
        "frame",
        "The outer 10 % of each side cut off: tight collimation.",
        partial(cut, left=0.1, top=0.1, right=0.1, bottom=0.1),
    ),
    Perturbation(
        "cut at the wrist",
        "frame",
        "The lower 10 % cut off, where the forearm is in an upright image.",
        partial(cut, bottom=0.1),
    ),
    Perturbation(
        "black frame",
        "frame",
        "Black at each side, a quarter of the width or height: a screenshot or a large detector.",
        partial(add_frame, share=0.25),
    ),
    Perturbation(
        "letter",
        "frame",
        "A lead letter L, full white, in the upper left corner.",
        add_letter,
    ),
    Perturbation(
        "text box",
        "frame",
        "A box of white text on black burned into the lower right corner.",
        add_text_box,
    ),
    Perturbation(
        "JPEG",
        "file",
        "A JPEG of quality 30, as messengers send.",
        partial(as_jpeg, quality=30),
    ),
    Perturbation(
        "16-bit PNG",
        "file",
        "The same intensities over the range of 16 bits, as exports of archives are.",
        as_16_bit_png,
    ),
    Perturbation(
        "DICOM",
        "file",
        "An uncompressed DICOM file, MONOCHROME2.",
        as_dicom,
    ),
    Perturbation(
        "DICOM, inverted",
        "file",
        "A DICOM file that stores a negative and says so (MONOCHROME1).",
        partial(as_dicom, photometric="MONOCHROME1"),
    ),
    Perturbation(
        "PNG, inverted",
        "file",
        "Black bone on white, which a PNG cannot say of itself: saved as a viewer inverts it.",
        as_negative_png,
    ),
)
"""All perturbations, in the order of tables."""
