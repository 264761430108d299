"""The radiographs of a benchmark: given files, or drawn hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.inputs import some_cases
from boneage_cli.datasets.drawn_hands import draw_hand
from boneage_cli.imaging.png import write_png
from boneage_cli.wording import counted

# More radiographs than this might not stay in the file cache, so that the disk would be timed, too.
MOST_IMAGES = 32
# Drawn hands have the image size and file size (0.9 MB) of RSNA's radiographs.
_DRAWN, _DRAWN_SIZE, _ENLARGED = 8, (320, 256), 6


@contextmanager
def radiographs(
    names: Sequence[str], male: bool, most: int | None = MOST_IMAGES
) -> Iterator[tuple[list[Case], str]]:
    """Yields the radiographs to read, and a description of them in one line.

    See ``some_cases`` for the errors that it raises.

    Args:
        names: Radiographs, folders, lists or tables; none for drawn hands in temporary files.
        male: Sex of children for whom no table gives it.
        most: The largest number of radiographs; None for all.
    """
    if names:
        chosen = some_cases(names, male, most)
        yield chosen, _described(chosen, "radiograph")
        return
    with TemporaryDirectory(prefix="boneage-bench-") as folder:
        chosen = [Case(str(path), male) for path in draw_radiographs(Path(folder), male)]
        yield chosen, _described(chosen, "drawn hand")


def draw_radiographs(folder: Path, male: bool) -> list[Path]:
    """Draws a few hands of 2 to 16 years as PNG files of a radiograph's size."""
    paths = []
    for number, months in enumerate(np.linspace(24, 192, _DRAWN)):
        drawn = draw_hand(months, male, np.random.default_rng(number), size=_DRAWN_SIZE).pixels
        pixels = cv2.resize(drawn, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f"drawn-{number + 1}.png")
        write_png(paths[-1], pixels)
    return paths


def _described(chosen: Sequence[Case], what: str) -> str:
    sizes = np.array([case.read().pixels.shape for case in chosen])
    height, width = np.median(sizes, axis=0).astype(int)
    about = "" if (sizes == sizes[0]).all() else "about "
    return f"{counted(len(chosen), what)} of {about}{width} × {height} pixels"
