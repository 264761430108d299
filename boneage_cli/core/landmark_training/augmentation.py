"""Augmentation for the key-point network: random pose, size, cropping and exposure."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
from boneage_cli.imaging.geometry import Matrix
from boneage_cli.imaging.landmarks import Landmarks
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.registration import canonical_from_image
from boneage_cli.imaging.warping import warp


def show(
    radiograph: Radiograph, landmarks: Landmarks, recipe: LandmarkRecipe, rng: np.random.Generator
) -> tuple[np.ndarray, NDArray[np.float64]]:
    """Renders a hand in a random pose and exposure.

    Returns:
        uint8 (size, size), and its key points as fractions of that square, (3, 2).
    """
    matrix = _random_pose(landmarks, aspect_of(radiograph), recipe, rng)
    border = float(rng.choice((0, 0, 0, rng.uniform(0, 255))))
    pixels = warp(radiograph, matrix, recipe.size, recipe.size, border=border)
    points = landmarks.array() @ matrix[:, :2].T + matrix[:, 2]
    if rng.random() < recipe.cut:
        _cut(pixels, points, border, rng)
    return _expose(pixels, rng), points


def _cut(
    pixels: np.ndarray, points: NDArray[np.float64], border: float, rng: np.random.Generator
) -> None:
    """Cuts off the fingers or the wrist in place; fills the removed part with ``border``."""
    tip, _, capitate = points
    angle = rng.normal(0, math.radians(8))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    along = turn @ (tip - capitate) / np.square(tip - capitate).sum()
    grid = (np.arange(len(pixels)) + 0.5) / len(pixels)
    # Position along the hand: 0 at the capitate, 1 at the fingertip.
    height = (grid[:, None] - capitate[1]) * along[1] + (grid - capitate[0]) * along[0]
    fingers = rng.random() < 0.5
    beyond = height > rng.uniform(0.6, 1.0) if fingers else height < rng.uniform(-0.12, 0.3)
    pixels[beyond] = round(border)


def _random_pose(
    landmarks: Landmarks, aspect: float, recipe: LandmarkRecipe, rng: np.random.Generator
) -> Matrix:
    """Draws a transform from image fractions to fractions of a square that contains all points."""
    upright = canonical_from_image(landmarks, aspect)
    if rng.random() < recipe.registered:
        angle, mirror = rng.normal(0, math.radians(12)), 1.0
    else:
        angle, mirror = rng.uniform(0, 2 * math.pi), rng.choice((-1.0, 1.0))
    length = math.exp(rng.uniform(*np.log(recipe.length)))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.diag((math.exp(rng.normal(0, 0.04)), 1.0))
    linear = length * turn @ stretch @ np.diag((mirror, 1.0)) @ upright[:, :2]
    moved = landmarks.array() @ linear.T
    # A random place in the square, more often near its centre.
    least, greatest = 0.02 - moved.min(0), 0.98 - moved.max(0)
    place = rng.beta(2, 2, 2)
    return np.column_stack([linear, least + place * (greatest - least)])


def _expose(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes the exposure: gamma, clipped shadows, gain, fog, noise, blur, some negatives."""
    image: np.ndarray = pixels.astype(np.float32) / 255
    image = image ** math.exp(rng.normal(0, 0.35))
    if rng.random() < 0.3:
        # Skin and fingertips become black, as with a window set to the bones.
        image = np.maximum(image - rng.uniform(0, 0.3), 0)
    image = image * math.exp(rng.uniform(-1.2, 0.3)) + rng.uniform(0, 0.15)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.3:
        # Relative to the contrast, so that noise does not hide a dark hand.
        noise = rng.uniform(0, 0.4) * float(image.std())
        image = image + rng.normal(0, noise, image.shape).astype(np.float32)
    if rng.random() < 0.1:
        image = 1 - image
    return np.clip(image * 255, 0, 255).astype(np.uint8)
