"""How the key-point network is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LandmarkRecipe:
    """How the network is trained.

    Attributes:
        drawings: Drawn hands that are mixed in, so that the demo data's hands are found too.
        size: Side of the square that the network sees, pixels, a multiple of 16.
        epochs: Passes over the images.
        batch_size: Images per step.
        learning_rate: Greatest rate of AdamW, warmed up over 5 % of the steps, then a cosine to 0.
        weight_decay: Of AdamW.
        averaging: Decay per step of the moving average of the weights that is the result.
        registered: Part of the examples that are shown upright, as in the second look.
        cut: Part of the examples whose fingers or wrist are cut off. Their points stay where they
            were, which is how such hands are told, see ``acceptance``.
        length: Least and greatest length of the shown hand, as a part of the square's side.
        seed: Of order and augmentation.
    """

    drawings: int = 200
    size: int = 128
    epochs: int = 16
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.995
    registered: float = 0.35
    cut: float = 0.2
    length: tuple[float, float] = (0.28, 0.75)
    seed: int = 42
