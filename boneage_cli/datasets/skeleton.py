"""A parametric skeleton of the left hand that matures with bone age: tables and geometry.

All shapes come from the tables in this file; nothing is measured on a patient. Coordinates are
*hand units* in the plane of a posteroanterior radiograph as displayed: fingers up, thumb to the
right, y downwards, origin at the centre of the capitate; the unit is the distance from there to
the third metacarpophalangeal joint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from boneage_cli.imaging.landmarks import Points

# Name, outlines and density of a bone at full mineralisation.
Shape = tuple[str, tuple[Points, ...], float]
DIGITS = (1, 2, 3, 4, 5)


class BySex(NamedTuple):
    """An age in months for boys and for girls."""

    boys: float
    girls: float

    def of(self, male: bool) -> float:
        """Returns the age for one sex."""
        return self.boys if male else self.girls


# Median age at which a centre is first seen. Approximate, rounded to months: Garn, Rohmann and
# Silverman, Med Radiogr Photogr 1967;43:45 (pisiform and sesamoid: Gilsanz and Ratib, Hand Bone
# Age, 2005). "proximal_3" is the epiphysis of the middle finger's proximal phalanx.
ONSET = {
    "capitate": BySex(3, 2),
    "hamate": BySex(4, 3),
    "radius": BySex(13, 10),
    "proximal_3": BySex(16, 10),
    "proximal_2": BySex(17, 11),
    "proximal_4": BySex(18, 11),
    "distal_1": BySex(19, 12),
    "metacarpal_2": BySex(19, 13),
    "metacarpal_3": BySex(21, 13),
    "proximal_5": BySex(22, 14),
    "metacarpal_4": BySex(24, 15),
    "middle_3": BySex(24, 15),
    "middle_4": BySex(25, 15),
    "metacarpal_5": BySex(26, 16),
    "middle_2": BySex(26, 16),
    "distal_3": BySex(29, 18),
    "distal_4": BySex(29, 18),
    "triquetrum": BySex(30, 21),
    "metacarpal_1": BySex(31, 19),
    "proximal_1": BySex(32, 20),
    "distal_2": BySex(39, 25),
    "distal_5": BySex(39, 24),
    "middle_5": BySex(41, 23),
    "lunate": BySex(49, 31),
    "scaphoid": BySex(68, 49),
    "trapezium": BySex(70, 49),
    "trapezoid": BySex(75, 50),
    "ulna": BySex(85, 64),
    "pisiform": BySex(130, 104),
    "sesamoid": BySex(153, 129),
}

# Age at which a centre has its adult outline (for an epiphysis: the width of its metaphysis).
# Approximate, after the plates of Greulich and Pyle, Radiographic Atlas, 2nd edition, 1959.
_MATURE = {
    "distal": BySex(132, 108),
    "proximal": BySex(138, 114),
    "middle": BySex(138, 114),
    "metacarpal": BySex(150, 126),
    "radius": BySex(150, 126),
    "ulna": BySex(162, 138),
    "carpal": BySex(162, 138),
    "pisiform": BySex(168, 144),
    "sesamoid": BySex(186, 162),
}

# Ages at which a growth plate begins to close and is closed; approximate, same sources.
CLOSING = {
    "distal": (BySex(174, 144), BySex(192, 162)),
    "proximal": (BySex(180, 150), BySex(198, 168)),
    "metacarpal": (BySex(180, 150), BySex(198, 168)),
    "middle": (BySex(186, 156), BySex(204, 174)),
    "ulna": (BySex(192, 168), BySex(210, 190)),
    "radius": (BySex(198, 174), BySex(226, 212)),
}

# The joints of each digit at rest: base of the metacarpal, its head, the interphalangeal joints
# and the tip of the bone.
_RAYS = {
    1: ((0.43, -0.05), (0.72, -0.52), (0.94, -0.85), (1.09, -1.09)),
    2: ((0.17, -0.17), (0.32, -0.99), (0.45, -1.52), (0.52, -1.83), (0.565, -2.05)),
    3: ((0.00, -0.17), (0.00, -1.00), (0.02, -1.62), (0.03, -1.99), (0.03, -2.23)),
    4: ((-0.15, -0.145), (-0.27, -0.91), (-0.37, -1.47), (-0.42, -1.81), (-0.46, -2.04)),
    5: ((-0.295, -0.12), (-0.51, -0.77), (-0.70, -1.16), (-0.81, -1.38), (-0.89, -1.56)),
}
_THUMB_BONES = ("metacarpal", "proximal", "distal")
_FINGER_BONES = ("metacarpal", "proximal", "middle", "distal")
_DIGIT_WIDTH = {1: 1.08, 2: 1.0, 3: 1.04, 4: 0.94, 5: 0.82}

# Half widths of the soft tissue round the joints of _RAYS.
_THUMB_TISSUE = (0.2, 0.17, 0.125, 0.095)
_FINGER_TISSUE = (0.2, 0.16, 0.12, 0.105, 0.088)

# Outlines of the mature carpal bones, neighbours nearly touching.
_CARPALS = {
    "capitate": (
        (-0.095, -0.15), (-0.02, -0.16), (0.06, -0.11), (0.095, -0.01), (0.085, 0.1),
        (0.02, 0.155), (-0.06, 0.145), (-0.095, 0.08),
    ),
    "hamate": (
        (-0.31, -0.1), (-0.22, -0.145), (-0.12, -0.15), (-0.105, 0.0), (-0.12, 0.1),
        (-0.165, 0.09), (-0.24, 0.01),
    ),
    "triquetrum": (
        (-0.36, 0.02), (-0.28, 0.0), (-0.2, 0.09), (-0.19, 0.14), (-0.26, 0.205), (-0.34, 0.16),
    ),
    "lunate": (
        (-0.235, 0.23), (-0.17, 0.145), (-0.07, 0.165), (-0.01, 0.19), (-0.025, 0.29),
        (-0.15, 0.295),
    ),
    "scaphoid": (
        (0.0, 0.26), (0.045, 0.15), (0.11, 0.04), (0.18, 0.035), (0.265, 0.12), (0.17, 0.22),
        (0.05, 0.285),
    ),
    "trapezium": (
        (0.22, -0.1), (0.31, -0.1), (0.365, -0.01), (0.35, 0.06), (0.28, 0.08), (0.215, 0.02),
    ),
    "trapezoid": (
        (0.1, -0.13), (0.18, -0.15), (0.235, -0.08), (0.205, 0.0), (0.125, 0.01), (0.09, -0.06),
    ),
    "pisiform": (
        (-0.33, 0.06), (-0.27, 0.045), (-0.23, 0.09), (-0.245, 0.15), (-0.3, 0.165), (-0.34, 0.12),
    ),
}  # fmt: skip
# Relative to the thumb's metacarpophalangeal joint, on its palm side.
_SESAMOID = ((-0.14, -0.01), (-0.105, -0.045), (-0.075, -0.02), (-0.085, 0.03), (-0.125, 0.035))

# Epiphyses of the forearm, then their shafts, which extend beyond the bottom edge of the film.
_FOREARM_EPIPHYSES = {
    "radius": (
        (-0.19, 0.33), (-0.14, 0.305), (0.02, 0.29), (0.14, 0.255), (0.2, 0.27), (0.21, 0.36),
        (0.16, 0.4), (0.03, 0.375), (-0.1, 0.36), (-0.185, 0.37),
    ),
    "ulna": (
        (-0.46, 0.31), (-0.42, 0.285), (-0.35, 0.345), (-0.25, 0.345), (-0.235, 0.39),
        (-0.32, 0.405), (-0.44, 0.395),
    ),
}  # fmt: skip
_FOREARM_SHAFTS = {
    "radius": (
        (-0.19, 0.405), (-0.1, 0.395), (0.03, 0.405), (0.15, 0.43), (0.2, 0.42), (0.2, 0.47),
        (0.14, 0.66), (0.13, 0.9), (0.15, 1.7), (-0.13, 1.7), (-0.13, 0.9), (-0.14, 0.66),
        (-0.19, 0.48),
    ),
    "ulna": (
        (-0.465, 0.43), (-0.35, 0.435), (-0.245, 0.425), (-0.24, 0.47), (-0.31, 0.62),
        (-0.315, 0.9), (-0.29, 1.7), (-0.47, 1.7), (-0.475, 0.9), (-0.475, 0.62), (-0.48, 0.47),
    ),
}  # fmt: skip


class _TubularBone(NamedTuple):
    """Shape of a metacarpal or phalanx.

    Attributes:
        plate: Half width at the end with the growth plate.
        shaft: Half width of the waist.
        free: Half width at the other end.
        flare: Length of the widening at the plate's end, as a fraction of the shaft's length.
        epiphysis: Thickness of the mature epiphysis.
        roundness: Shape of the epiphysis, from 0 (flat plate) to 1 (ellipse).
        density: Brightness added to the soft tissue's.
    """

    plate: float
    shaft: float
    free: float
    flare: float
    epiphysis: float
    roundness: float
    density: float


# "plate" is the end with the growth plate: the head of metacarpals 2 to 5, the base elsewhere.
_TUBULAR = {
    "metacarpal": _TubularBone(0.08, 0.052, 0.076, 0.2, 0.12, 0.9, 0.30),
    "thumb_metacarpal": _TubularBone(0.09, 0.06, 0.08, 0.25, 0.07, 0.3, 0.30),
    "proximal": _TubularBone(0.088, 0.056, 0.066, 0.25, 0.052, 0.1, 0.26),
    "middle": _TubularBone(0.075, 0.046, 0.056, 0.3, 0.046, 0.1, 0.21),
    "distal": _TubularBone(0.064, 0.028, 0.04, 0.4, 0.042, 0.1, 0.17),
}
_CARPAL_DENSITY = 0.27
_FOREARM_DENSITY = {"radius": 0.38, "ulna": 0.32}


@dataclass(frozen=True)
class Maturation:
    """State of every ossification centre of one hand.

    Attributes:
        growth: Per centre of ``ONSET``, 0 before it appears, then up to 1 at its adult outline.
        closing: Per centre with a growth plate, elapsed fraction (0–1) of the time from adult
            outline to closing plate.
        fusion: Per centre with a growth plate, the fraction of the plate that is bone (0–1).
        youth: 1 in a newborn, 0 from 10 (girls: 8) years on; adds soft tissue and cartilage.
        mineral: 0 in a newborn, 1 when the radius begins to close; thickens cortices and
            brightens bone.
    """

    growth: Mapping[str, float]
    closing: Mapping[str, float]
    fusion: Mapping[str, float]
    youth: float
    mineral: float


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees, positive towards the thumb; all 0 is the resting hand.

    Attributes:
        abduction: Per digit 1–5, rotation of the fingers at their metacarpophalangeal joints, of
            the thumb at the base of its metacarpal.
        bend: Per digit 1–5, additional rotation at each interphalangeal joint.
        wrist: Rotation of the forearm relative to the hand.
    """

    abduction: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    bend: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    wrist: float = 0.0


@dataclass(frozen=True)
class Bone:
    """One bone as visible on the film.

    Attributes:
        name: Name of its centre, as in ``ONSET``.
        outlines: Closed polygons (N, 2) in hand units whose union is the bone; empty while all
            of it is cartilage.
        density: Brightness added to the soft tissue's.
        cortex: Thickness of its bright rim, hand units.
    """

    name: str
    outlines: tuple[Points, ...]
    density: float
    cortex: float


@dataclass(frozen=True)
class Hand:
    """A posed hand in hand units.

    Attributes:
        bones: Radius, ulna, carpals, sesamoid, then the digits from the thumb on.
        joints: Named points: ``capitate``, ``wrist`` (centre of the distal radius and ulna),
            ``middle_tip`` and ``thumb_tip`` (just inside the skin), ``mcp_1`` … ``mcp_5``,
            ``pip_2`` … ``pip_5``, ``dip_2`` … ``dip_5`` and ``ip_1``.
        carpals: Points (N, 2) around all carpal bones, ossified or not.
        knuckles: Points (N, 2) around all metacarpals and proximal phalanges.
        forearm: Points (N, 2) around the distal epiphyses of radius and ulna, ossified or not.
        tissue: Closed polygons (N, 2) whose union is the skin's outline.
    """

    bones: tuple[Bone, ...]
    joints: Mapping[str, Points]
    carpals: Points
    knuckles: Points
    forearm: Points
    tissue: tuple[Points, ...]


def maturation(
    boneage: float, male: bool, scatter: Mapping[str, float] | None = None
) -> Maturation:
    """Looks up how mature each ossification centre is at a bone age.

    Bone ages refer to the atlas of each sex, so that a girl's hand is more mature than a boy's at
    the same bone age in months.

    Args:
        boneage: Months.
        male: The atlas to use.
        scatter: Individual timing: per centre, a factor on all of its ages (1 if missing).

    Returns:
        The state of all centres. No value decreases with bone age except ``youth``.
    """
    growth, closing, fusion = {}, {}, {}
    for name, onset in ONSET.items():
        own_age = boneage / (scatter or {}).get(name, 1.0)
        kind = name.split("_")[0]
        mature = _MATURE.get(kind, _MATURE["carpal"]).of(male)
        growth[name] = _passed(own_age, onset.of(male), mature) ** 0.8
        if kind in CLOSING:
            begin, end = (age.of(male) for age in CLOSING[kind])
            closing[name] = _passed(own_age, mature, begin)
            fusion[name] = _passed(own_age, begin, end)
    youth = 1.0 - _passed(boneage, 0.0, 120.0 if male else 96.0)
    mineral = _passed(boneage, 0.0, CLOSING["radius"][0].of(male))
    return Maturation(growth, closing, fusion, youth, mineral)


def hand(
    state: Maturation,
    pose: Pose | None = None,
    *,
    slender: float = 1.0,
    lengths: Mapping[int, float] | None = None,
    flesh: float = 1.0,
) -> Hand:
    """Builds the outlines of a left hand.

    Args:
        state: The maturity of its ossification centres.
        pose: Joint angles; None for the hand at rest.
        slender: Factor on the widths of metacarpals and phalanges.
        lengths: Factor on the lengths of each digit's bones; 1 if missing.
        flesh: Factor on the thickness of the soft tissue.

    Returns:
        Bones, landmarks and soft tissue in hand units.
    """
    pose = pose or Pose()
    rays = {digit: _posed_ray(digit, pose, (lengths or {}).get(digit, 1.0)) for digit in DIGITS}
    turn = rotation(pose.wrist)
    flesh *= 1.0 + 0.35 * state.youth
    shapes = [
        *_forearm(state, turn),
        *_carpals(state, rays[1]),
        *(shape for digit in DIGITS for shape in _digit(digit, rays[digit], state, slender)),
    ]
    whiteness, cortex = 0.75 + 0.25 * state.mineral, 0.013 + 0.012 * state.mineral
    forearm = np.concatenate([np.array(o) @ turn.T for o in _FOREARM_EPIPHYSES.values()])
    return Hand(
        bones=tuple(
            Bone(name, outlines, density * whiteness, cortex) for name, outlines, density in shapes
        ),
        joints=_joints(rays, flesh, forearm),
        carpals=np.concatenate([np.array(outline) for outline in _CARPALS.values()]),
        knuckles=np.concatenate([_beside(rays[digit][:3], 0.09) for digit in DIGITS]),
        forearm=forearm,
        tissue=tuple(_tissue(rays, turn, flesh)),
    )


def rotation(degrees: float) -> Points:
    """Returns the rotation matrix (2, 2) towards the thumb, clockwise as displayed."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _passed(age: float, begin: float, end: float) -> float:
    return float(np.clip((age - begin) / (end - begin), 0.0, 1.0))


def _posed_ray(digit: int, pose: Pose, length: float) -> Points:
    rest = np.array(_RAYS[digit])
    bones = np.diff(rest, axis=0) * length
    first = 0 if digit == 1 else 1
    turn = pose.abduction[digit - 1]
    for joint in range(first, len(bones)):
        bones[joint] = rotation(turn) @ bones[joint]
        if joint >= 1:
            turn += pose.bend[digit - 1]
    return np.vstack([rest[:1], rest[0] + np.cumsum(bones, axis=0)])


def _joints(rays: Mapping[int, Points], flesh: float, forearm: Points) -> dict[str, Points]:
    joints = {
        "middle_tip": _skin_tip(rays[3], _FINGER_TISSUE[-1] * _DIGIT_WIDTH[3] * flesh),
        "thumb_tip": _skin_tip(rays[1], _THUMB_TISSUE[-1] * flesh),
        "capitate": np.zeros(2),
        "wrist": (forearm.min(axis=0) + forearm.max(axis=0)) / 2,
    }
    joints |= {f"mcp_{digit}": rays[digit][1] for digit in DIGITS}
    joints["ip_1"] = rays[1][2]
    joints |= {f"pip_{digit}": rays[digit][2] for digit in DIGITS[1:]}
    joints |= {f"dip_{digit}": rays[digit][3] for digit in DIGITS[1:]}
    return joints


def _skin_tip(ray: Points, thickness: float) -> Points:
    # A point inside the skin rather than on its faint edge.
    axis = ray[-1] - ray[-2]
    return ray[-1] + axis / np.hypot(*axis) * thickness * 0.8


def _digit(digit: int, ray: Points, state: Maturation, slender: float) -> Iterator[Shape]:
    for index, kind in enumerate(_THUMB_BONES if digit == 1 else _FINGER_BONES):
        start, end = ray[index], ray[index + 1]
        shape = _TUBULAR["thumb_metacarpal" if (digit, kind) == (1, "metacarpal") else kind]
        if kind == "metacarpal" and digit != 1:
            start, end = end, start
        width = _DIGIT_WIDTH[digit] * slender * (1.0 + 0.2 * state.youth)
        name = f"{kind}_{digit}"
        yield name, _tubular(start, end, shape, width, state, name), shape.density


def _tubular(
    start: Points, end: Points, shape: _TubularBone, width: float, state: Maturation, name: str
) -> tuple[Points, ...]:
    """Returns diaphysis, epiphysis and the bridge across the growth plate, located at ``start``."""
    length = float(np.hypot(*(end - start)))
    cartilage = 0.013 + 0.02 * state.youth
    gap = 0.038 - 0.014 * state.closing[name]
    plate = cartilage + shape.epiphysis + gap
    outlines = [_diaphysis(plate, length - cartilage, shape, width)]
    growth, fused = state.growth[name], state.fusion[name]
    half = shape.plate * width * (1.0 + 0.1 * state.closing[name])
    if growth > 0:
        middle = cartilage + shape.epiphysis / 2
        disc = _disc(middle, shape.epiphysis / 2, half, shape.roundness)
        outlines.append(_ossified(disc, growth))
        if fused > 0:
            outlines.append(_strip(middle, plate + 0.012, half * 0.95 * fused))
    axis = (end - start) / length
    frame = np.stack([axis, [-axis[1], axis[0]]])
    return tuple(start + outline @ frame for outline in outlines)


def _diaphysis(begin: float, end: float, shape: _TubularBone, width: float) -> Points:
    """Returns a waisted outline with rounded ends, as (position on the axis, distance from it)."""
    t = (1.0 - np.cos(np.linspace(0.0, np.pi, 41))) / 2
    flare_plate = (shape.plate - shape.shaft) * np.exp(-((t / shape.flare) ** 2))
    flare_free = (shape.free - shape.shaft) * np.exp(-(((1 - t) / 0.2) ** 2))
    along = begin + t * (end - begin)
    round_end = np.sqrt(1 - np.clip(1 - (end - along) / 0.045, 0, 1) ** 2)
    round_plate = np.sqrt(1 - np.clip(1 - (along - begin) / 0.012, 0, 1) ** 2)
    half = (shape.shaft + flare_plate + flare_free) * width * round_end * round_plate
    return np.concatenate([np.stack([along, half], 1), np.stack([along, -half], 1)[::-1]])


def _disc(middle: float, thick: float, half: float, roundness: float) -> Points:
    """Returns a superellipse: a flat plate at roundness 0, an ellipse at 1."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = 0.5 + 0.5 * roundness
    cos, sin = np.cos(angle), np.sin(angle)
    along = middle + thick * np.sign(cos) * np.abs(cos) ** power
    return np.stack([along, half * np.sign(sin) * np.abs(sin) ** power], 1)


def _strip(begin: float, end: float, half: float) -> Points:
    return np.array([(begin, -half), (end, -half), (end, half), (begin, half)])


def _ossified(outline: Points, growth: float) -> Points:
    """Interpolates a centre between a round nucleus and its adult outline."""
    centre = (outline.min(axis=0) + outline.max(axis=0)) / 2
    arms = outline - centre
    reach = np.hypot(*arms.T)[:, None]
    nucleus = arms / reach * np.sqrt(np.prod(np.ptp(outline, axis=0))) / 2
    return centre + (0.35 + 0.65 * growth) * (growth * arms + (1 - growth) * nucleus)


def _smooth(outline: Points | tuple[tuple[float, float], ...]) -> Points:
    """Rounds a closed polygon's corners (three rounds of Chaikin's corner cutting)."""
    points = np.asarray(outline, dtype=float)
    for _ in range(3):
        following = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1)
        points = cut.reshape(-1, 2)
    return points


def _carpals(state: Maturation, thumb: Points) -> Iterator[Shape]:
    axis = thumb[2] - thumb[1]
    rest = np.array(_RAYS[1][2]) - np.array(_RAYS[1][1])
    turn = np.degrees(np.arctan2(axis[1], axis[0]) - np.arctan2(rest[1], rest[0]))
    sesamoid = thumb[1] + np.array(_SESAMOID) @ rotation(float(turn)).T
    for name, outline in [*_CARPALS.items(), ("sesamoid", sesamoid)]:
        growth = state.growth[name]
        # Corner cutting loses about a tenth of the radius.
        mature = _smooth(outline)
        mature = mature.mean(axis=0) + 1.08 * (mature - mature.mean(axis=0))
        outlines = (_ossified(mature, growth),) if growth > 0 else ()
        yield name, outlines, _CARPAL_DENSITY


def _forearm(state: Maturation, turn: Points) -> Iterator[Shape]:
    for name, epiphysis in _FOREARM_EPIPHYSES.items():
        shaft = np.array(_FOREARM_SHAFTS[name])
        outlines = [_smooth(shaft)]
        if state.growth[name] > 0:
            drop = np.array([0.0, 0.012]) * state.closing[name]
            outlines.append(_ossified(_smooth(epiphysis) * (1.02, 1.0) + drop, state.growth[name]))
        if state.fusion[name] > 0:
            left, right = shaft[0, 0], shaft[:6, 0].max()
            half = (right - left) / 2 * 0.98 * state.fusion[name]
            bridge = _strip(0.37, 0.45, half)[:, ::-1]
            outlines.append(bridge + np.array([(left + right) / 2, 0.0]))
        yield name, tuple(o @ turn.T for o in outlines), _FOREARM_DENSITY[name]


def _beside(path: Points, width: float) -> Points:
    """Returns points at distance ``width`` on both sides of a polyline's corners."""
    axes = np.gradient(path, axis=0)
    normal = np.stack([-axes[:, 1], axes[:, 0]], 1) / np.hypot(*axes.T)[:, None]
    return np.concatenate([path + normal * width, path - normal * width])


def _tissue(rays: Mapping[int, Points], turn: Points, flesh: float) -> Iterator[Points]:
    for digit, ray in rays.items():
        radii = np.array(_THUMB_TISSUE if digit == 1 else _FINGER_TISSUE)
        radii = radii * flesh * (1.0 if digit == 1 else _DIGIT_WIDTH[digit])
        for joint in range(0 if digit == 1 else 1, len(ray) - 1):
            yield _capsule(ray[joint], ray[joint + 1], radii[joint], radii[joint + 1])
    webs = [(rays[d][1] * 0.72 + rays[d][2] * 0.28) for d in (5, 4, 3, 2)]
    webs = [(a + b) / 2 for a, b in pairwise(webs)]
    side = 0.15 * flesh
    yield np.array(
        [
            (-0.34 - side, 0.4), (-0.32 - side, 0.05), rays[5][1] + (-side, 0.1),
            rays[5][1] + (-side, -0.05), *webs, rays[2][1] + (side, -0.06),
            (rays[2][1] + rays[1][1]) / 2, rays[1][1], rays[1][0] + (0.13, 0.12),
            (0.19 + side, 0.4),
        ]
    )  # fmt: skip
    forearm = [(-0.34 - side, 0.3), (0.19 + side, 0.3), (0.22 + side, 1.7), (-0.42 - side, 1.7)]
    yield np.array(forearm) @ turn.T


def _capsule(a: Points, b: Points, radius_a: float, radius_b: float) -> Points:
    """Returns the outline of two half circles joined by straight lines."""
    axis = (b - a) / np.hypot(*(b - a))
    towards = np.arctan2(axis[1], axis[0])
    half = np.linspace(-np.pi / 2, np.pi / 2, 16)
    cap_b = b + radius_b * np.stack([np.cos(towards + half), np.sin(towards + half)], 1)
    cap_a = a - radius_a * np.stack([np.cos(towards + half), np.sin(towards + half)], 1)
    return np.concatenate([cap_b, cap_a])
