"""The built-in demo data set: drawn left hands whose bone age and landmarks are known exactly.

The images imitate radiographs and are drawn from the tables of
:mod:`boneage_cli.datasets.skeleton`. They show no patient, and errors measured on them do not
transfer to radiographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boneage_cli.csv_files import write_csv
from boneage_cli.datasets import skeleton
from boneage_cli.datasets.manifest import SPLITS, write_manifest
from boneage_cli.imaging.geometry import Box
from boneage_cli.imaging.png import write_png
from boneage_cli.progress import track
from boneage_cli.threads import worker_threads

Image = NDArray[np.floating]

# Greatest bone age in each sex's atlas, months (Greulich and Pyle, 1959).
OLDEST = skeleton.BySex(228, 216)
# Bones are drawn at twice the size and then halved, for smooth edges.
_OVERSAMPLING = 2
# Length of the hand, capitate to fingertip, in hand units and as a fraction of the image's height;
# the fractions were measured in RSNA's radiographs at 1 and at 18 years.
_HAND_LENGTH = 2.3
_HAND_PART = (0.53, 0.61)
# Margin without fingers at the image's edges, as a fraction of its height.
_MARGIN = 0.045
_INITIALS = "ABCDEFHJKLMNPRSTVWZ"


@dataclass(frozen=True)
class Nuisances:
    """Amounts of variation that is unrelated to bone age; 0 switches a nuisance off.

    Attributes:
        timing: SD of each ossification centre's own timing, relative to its ages.
        proportions: SD of bone lengths and widths, relative.
        soft_tissue: SD of the soft tissue's thickness, relative.
        rotation: SD of the whole hand's rotation, degrees.
        spread: SD of the fingers' abduction, degrees.
        shift: SD of the hand's position, as a fraction of the image's height.
        zoom: SD of the hand's size, relative.
        exposure: Strength of gain, gamma and background fog; 1 resembles RSNA's radiographs.
        blur: Greatest SD of the Gaussian blur, as a fraction of the image's height.
        noise: SD of the noise and depth of the trabecular pattern, relative to full scale.
        marker: Probability of a lead "L" with initials.
        border: Probability of a cassette border or collimated field.
    """

    timing: float = 0.03
    proportions: float = 0.03
    soft_tissue: float = 0.12
    rotation: float = 5.0
    spread: float = 4.0
    shift: float = 0.02
    zoom: float = 0.07
    exposure: float = 1.0
    blur: float = 0.005
    noise: float = 0.015
    marker: float = 0.9
    border: float = 0.35


NO_NUISANCES = Nuisances(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class DrawnHand:
    """A drawing of a left hand with its ground truth.

    Attributes:
        pixels: uint8 (H, W), white bone on black.
        landmarks: (x, y) by name, as fractions of width and height: ``middle_tip``, ``thumb_tip``
            (just inside the skin), ``capitate``, ``wrist``, ``mcp_1`` … ``mcp_5``, ``ip_1``,
            ``pip_2`` … ``pip_5``, ``dip_2`` … ``dip_5``.
        regions: (xmin, ymin, xmax, ymax) by name, same units: ``carpal`` (all carpal bones),
            ``metaph`` (metacarpals and proximal phalanges), ``wrist`` (carpal bones and distal
            radius and ulna), ``mcp_1`` … ``mcp_5``.
        bone: Mask of the bones, bool (H, W).
        skin: Mask of the hand, bool (H, W).
    """

    pixels: NDArray[np.uint8]
    landmarks: Mapping[str, tuple[float, float]]
    regions: Mapping[str, Box]
    bone: NDArray[np.bool_]
    skin: NDArray[np.bool_]


def draw_hand(
    boneage: float,
    male: bool,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (320, 256),
    nuisances: Nuisances | None = None,
) -> DrawnHand:
    """Draws one left hand.

    Anatomy, pose, exposure and noise have separate generators, spawned from ``rng``, so that
    changing one nuisance leaves the others unchanged.

    Args:
        boneage: Months, 0–228 (girls 216); hands above that look the same.
        male: The sex whose atlas is used; girls are ahead at the same bone age.
        rng: Random generator.
        size: Height and width in pixels.
        nuisances: Variation unrelated to bone age; None for the default.

    Returns:
        The drawing, its landmarks and its regions.

    Raises:
        ValueError: The bone age is negative or not finite, or the image is smaller than 64 pixels.
    """
    if not (np.isfinite(boneage) and boneage >= 0):
        raise ValueError(f"bone age {boneage}: must be 0 or more months")
    if min(size) < 64:
        raise ValueError(f"size {size}: a hand needs at least 64 x 64 pixels")
    nuisances = nuisances or Nuisances()
    anatomy, pose, exposure, texture = rng.spawn(4)
    hand = _individual(boneage, male, anatomy, pose, nuisances)
    place = _Placement.random(hand, boneage, size, pose, nuisances)
    skin, bones = _skin(hand, place), _bones(hand, place, texture, nuisances)
    film = _expose(skin, bones, exposure, texture, nuisances)
    return DrawnHand(
        pixels=np.clip(film * 255 + 0.5, 0, 255).astype(np.uint8),
        landmarks={name: place.fraction(point) for name, point in hand.joints.items()},
        regions={name: place.box(points) for name, points in _regions(hand).items()},
        bone=bones > 0.08,
        skin=skin > 0.01,
    )


def write_demo(
    folder: Path, *, train: int = 240, validation: int = 60, test: int = 60, seed: int = 42
) -> None:
    """Draws the demo data set: images, ``<split>.csv``, ``landmarks.csv`` and ``regions.csv``.

    The sexes are balanced and every split has the same age distribution, half that of RSNA's
    training set (mean 127, SD 41 months) and half uniform, so that all ages are learned. The same
    arguments write the same bytes.

    Args:
        folder: The data set's folder; created if missing. It holds no other data set.
        train: Number of training images.
        validation: Number of validation images.
        test: Number of test images.
        seed: Random seed.
    """
    counts = dict(zip(SPLITS, (train, validation, test), strict=True))
    labels, drawings = np.random.SeedSequence(seed).spawn(2)
    manifest = _cases(counts, np.random.default_rng(labels))
    seeds = drawings.spawn(len(manifest))

    def draw_and_write(row: int) -> DrawnHand:
        case = manifest.iloc[row]
        drawn = draw_hand(case["boneage"], case["male"], np.random.default_rng(seeds[row]))
        write_png(folder / case["path"], drawn.pixels)
        return drawn

    with worker_threads() as pool:
        drawn_hands = list(
            track(
                pool.map(draw_and_write, range(len(manifest))),
                description="draw hands",
                total=len(manifest),
            )
        )
    write_csv(_landmark_rows(manifest, drawn_hands), folder / "landmarks.csv", "%.5f")
    write_csv(_region_rows(manifest, drawn_hands), folder / "regions.csv", "%.5f")
    write_manifest(manifest, folder)


def _cases(counts: Mapping[str, int], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for split, count in counts.items():
        boys = (count + 1) // 2
        sexes = [True] * boys + [False] * (count - boys)
        ages = [*_ages(boys, OLDEST.boys, rng), *_ages(count - boys, OLDEST.girls, rng)]
        rows += [(ages[i], sexes[i], split) for i in rng.permutation(count)]
    manifest = pd.DataFrame(rows, columns=["boneage", "male", "split"])
    manifest.insert(0, "id", [f"drawn-{number:04d}" for number in range(1, len(rows) + 1)])
    manifest.insert(1, "path", manifest["split"] + "/" + manifest["id"] + ".png")
    return manifest


def _ages(count: int, oldest: float, rng: np.random.Generator) -> list[int]:
    """Draws ages in whole months, one from each of ``count`` equally probable strata."""
    months = np.arange(1, oldest + 1)
    bell = np.exp(-(((months - 127) / 41) ** 2) / 2)
    probability = 0.5 * bell / bell.sum() + 0.5 / len(months)
    quantiles = (np.arange(count) + rng.random(count)) / max(count, 1)
    places = np.searchsorted(np.cumsum(probability), quantiles)
    return [int(month) for month in months[np.minimum(places, len(months) - 1)]]


def _landmark_rows(manifest: pd.DataFrame, hands: list[DrawnHand]) -> pd.DataFrame:
    rows = [
        {f"{name}_{axis}": value for name, point in hand.landmarks.items()
         for axis, value in zip("xy", point, strict=True)}
        for hand in hands
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(0, "id", manifest["id"])
    return table.assign(split=manifest["split"])


def _region_rows(manifest: pd.DataFrame, hands: list[DrawnHand]) -> pd.DataFrame:
    rows = [
        (case, label, *box)
        for case, hand in zip(manifest["id"], hands, strict=True)
        for label, box in hand.regions.items()
    ]
    return pd.DataFrame(rows, columns=["id", "label", "xmin", "ymin", "xmax", "ymax"])


def _individual(
    boneage: float,
    male: bool,
    anatomy: np.random.Generator,
    pose: np.random.Generator,
    nuisances: Nuisances,
) -> skeleton.Hand:
    timing = 1 + nuisances.timing * np.clip(anatomy.standard_normal(len(skeleton.ONSET)), -2, 2)
    length = 1 + nuisances.proportions * anatomy.standard_normal(5)
    slender = 1 + nuisances.proportions * anatomy.standard_normal()
    flesh = np.exp(nuisances.soft_tissue * np.clip(anatomy.standard_normal(), -2, 2))
    state = skeleton.maturation(
        boneage, male, dict(zip(skeleton.ONSET, timing.tolist(), strict=True))
    )
    # All fingers fan out together, and each one also varies a little by itself.
    fan = pose.standard_normal() * np.array([-0.5, 1.0, 0.2, -0.6, -1.5])
    abduction = nuisances.spread * (fan + 0.4 * pose.standard_normal(5)) * (2.0, 1, 1, 1, 1)
    return skeleton.hand(
        state,
        skeleton.Pose(
            abduction=tuple(abduction.tolist()),
            bend=tuple((0.4 * nuisances.spread * pose.standard_normal(5)).tolist()),
            wrist=nuisances.spread * pose.standard_normal(),
        ),
        slender=slender,
        lengths=dict(zip(skeleton.DIGITS, length.tolist(), strict=True)),
        flesh=flesh,
    )


@dataclass(frozen=True)
class _Placement:
    """Similarity transform of the hand: ``pixel = scale * rotation @ point + offset``."""

    scale: float
    rotation: NDArray[np.float64]
    offset: NDArray[np.float64]
    size: tuple[int, int]

    @classmethod
    def random(
        cls,
        hand: skeleton.Hand,
        boneage: float,
        size: tuple[int, int],
        rng: np.random.Generator,
        nuisances: Nuisances,
    ) -> _Placement:
        height, width = size
        angle = nuisances.rotation * rng.standard_normal()
        shift = nuisances.shift * rng.standard_normal(2) * height
        zoom = np.exp(nuisances.zoom * rng.standard_normal())
        part = np.interp(boneage, (12, 216), _HAND_PART)
        rotation = skeleton.rotation(angle)
        scale = part * zoom * height / _HAND_LENGTH
        # Fingers and carpal bones stay within the image: landmarks outside it would be useless.
        points = np.concatenate([*hand.tissue[:-2], hand.carpals]) @ rotation.T
        low, high = points.min(axis=0), points.max(axis=0)
        room = np.array([width, height]) - 2 * _MARGIN * height
        scale = min(scale, *(room / (high - low)))
        wanted = np.array([0.487 * width, 0.69 * height]) + shift
        first = _MARGIN * height - scale * low
        last = first + room - scale * (high - low)
        return cls(scale, rotation, np.clip(wanted, first, last), size)

    def pixel(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scale * points @ self.rotation.T + self.offset

    def fraction(self, point: NDArray[np.float64]) -> tuple[float, float]:
        x, y = self.pixel(point)
        return float(x / self.size[1]), float(y / self.size[0])

    def box(self, points: NDArray[np.float64]) -> Box:
        pixels = self.pixel(points) / (self.size[1], self.size[0])
        (xmin, ymin), (xmax, ymax) = np.clip([pixels.min(axis=0), pixels.max(axis=0)], 0, 1)
        return float(xmin), float(ymin), float(xmax), float(ymax)


def _regions(hand: skeleton.Hand) -> dict[str, NDArray[np.float64]]:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    # Half the size of hand-drawn metacarpophalangeal boxes on RSNA's radiographs.
    knuckle = corners * (0.14, 0.155)
    return {
        "carpal": hand.carpals,
        "metaph": hand.knuckles,
        "wrist": np.concatenate([hand.carpals, hand.forearm]),
    } | {f"mcp_{digit}": hand.joints[f"mcp_{digit}"] + knuckle for digit in skeleton.DIGITS}


def _skin(hand: skeleton.Hand, place: _Placement) -> Image:
    """Returns the soft tissue's brightness (H, W): it rises with thickness, 0 outside the hand."""
    skin = np.zeros(place.size, np.uint8)
    for outline in hand.tissue:
        _fill(skin, place.pixel(outline))
    # Blurring and thresholding at one half rounds the webs between the fingers.
    rounded = (cv2.GaussianBlur(skin, (0, 0), 0.03 * place.scale) > 127).astype(np.uint8)
    depth = cv2.distanceTransform(rounded, cv2.DIST_L2, 5) / place.scale
    return (0.34 * (1 - np.exp(-depth / 0.13))).astype(np.float32)


def _bones(
    hand: skeleton.Hand, place: _Placement, rng: np.random.Generator, nuisances: Nuisances
) -> Image:
    """Returns the bones' brightness (H, W); overlapping bones add up."""
    height, width = place.size
    large = (_OVERSAMPLING * height, _OVERSAMPLING * width)
    unit = _OVERSAMPLING * place.scale
    grain = cv2.resize(_grain(place.size, rng), large[::-1], interpolation=cv2.INTER_LINEAR)
    texture = 1 + 6 * nuisances.noise * grain
    bones = np.zeros(large, np.float32)
    for bone in hand.bones:
        outlines = [_OVERSAMPLING * place.pixel(outline) for outline in bone.outlines]
        for crop, mask in _filled(outlines, large):
            depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / unit
            cortex = np.exp(-((depth / bone.cortex) ** 2))
            marrow = 0.5 + 0.25 * np.minimum(depth / 0.06, 1)
            body = (marrow * texture[crop] + 0.7 * cortex) * (mask / np.float32(255))
            bones[crop] += bone.density * body
    return cv2.resize(bones, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def _filled(
    outlines: list[NDArray[np.float64]], size: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.uint8]]]:
    """Yields the union of polygons as a mask of its bounding box, unless outside the image."""
    if not outlines:
        return
    points = np.concatenate(outlines)
    low = np.clip(np.floor(points.min(axis=0)).astype(int) - 2, 0, (size[1], size[0]))
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 3, 0, (size[1], size[0]))
    if (high <= low).any():
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    for outline in outlines:
        _fill(mask, outline - low)
    yield (slice(low[1], high[1]), slice(low[0], high[0])), mask


def _fill(mask: NDArray[np.uint8], outline: NDArray[np.floating]) -> None:
    fraction_bits = 4
    points = np.round(outline * 2**fraction_bits).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, fraction_bits)


def _grain(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Returns smooth noise with standard deviation 1."""
    grain = cv2.GaussianBlur(rng.standard_normal(size, np.float32), (0, 0), 0.8)
    return grain / grain.std()


def _expose(
    skin: Image,
    bones: Image,
    rng: np.random.Generator,
    texture: np.random.Generator,
    nuisances: Nuisances,
) -> Image:
    """Converts densities to the film's brightness (H, W), 0–1 before clipping."""
    strength = nuisances.exposure
    gain = float(np.exp(strength * (0.2 * rng.standard_normal() - 0.05)))
    gamma = float(np.exp(0.12 * strength * rng.standard_normal()))
    fog = 0.05 * strength * abs(float(rng.standard_normal()))
    # Some films are strongly fogged.
    fog += 0.25 * strength * (rng.random() < 0.12)
    across, down = (0.03 * strength * rng.standard_normal(2)).tolist()
    height, width = skin.shape
    blur = rng.random() * nuisances.blur * height
    film: Image = (1 - fog) * gain * (skin + bones) ** gamma + (0.02 + fog)
    film += across * np.linspace(-0.5, 0.5, width, dtype=np.float32)
    film += down * np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    if blur > 0.1:
        film = cv2.GaussianBlur(film, (0, 0), blur).astype(np.float32)
    if rng.random() < nuisances.marker:
        film = _with_marker(film, skin > 0, rng)
    if rng.random() < nuisances.border:
        film = _with_border(film, rng)
    return film + nuisances.noise * texture.standard_normal(film.shape, np.float32)


def _with_marker(film: Image, hand: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Adds a lead L with initials on a plastic tag, if there is room beside the hand."""
    height, width = film.shape
    tag = _tag("".join(rng.choice(list(_INITIALS), rng.integers(2, 4))), height)
    side = max(tag.shape)
    angle = rng.normal(0, 12) + 90 * (rng.random() < 0.1)
    for _ in range(30):
        centre = rng.uniform((0.05, 0.05), (0.3, 0.95)) * (width, height)
        low = np.maximum(centre - side / 2, 0).astype(int)
        high = (centre + side / 2).astype(int)
        if not hand[low[1] : high[1], low[0] : high[0]].any():
            turn = cv2.getRotationMatrix2D((tag.shape[1] / 2, tag.shape[0] / 2), angle, 1.0)
            turn[:, 2] += centre - (tag.shape[1] / 2, tag.shape[0] / 2)
            return film + cv2.warpAffine(tag, turn, (width, height), flags=cv2.INTER_LINEAR)
    return film


def _tag(initials: str, height: int) -> Image:
    big = 4
    tag = np.full((int(0.17 * height) * big, int(0.1 * height) * big), 18, np.uint8)
    rows, columns = tag.shape
    for text, share, baseline in (("L", 0.4, 0.55), (initials, 0.22, 0.9)):
        (wide, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
        scale = min(share * rows / tall, 0.85 * columns / wide)
        place = (int((columns - wide * scale) / 2), int(baseline * rows))
        thickness = max(1, int(0.03 * rows))
        cv2.putText(tag, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    small = cv2.resize(tag, (columns // big, rows // big), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _with_border(film: Image, rng: np.random.Generator) -> Image:
    """Adds a border: a bright cassette edge, or a black or grey area outside the collimator."""
    height, width = film.shape
    inset = rng.uniform(0.0, 0.8 * _MARGIN, 4) * height
    left, top, right, bottom = inset * (1, 1, -1, -1) + (0, 0, width, height)
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 0.7), 1.0)
    field = np.zeros((height, width), np.uint8)
    _fill(field, corners @ turn[:, :2].T + turn[:, 2])
    inside = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.3, 2)) / np.float32(255)
    outside = float(rng.choice([0.0, 0.3, 0.9]))
    return inside * film + (1 - inside) * outside
