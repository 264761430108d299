"""Training settings of the key-point network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LandmarkRecipe:
    """Training settings of the key-point network.

    Attributes:
        drawings: Number of drawn hands in the training data, so that those of the demo data are
            found, too.
        size: Side of the square input, pixels, a multiple of 16.
        epochs: Passes over the images.
        batch_size: Images per step.
        learning_rate: Peak rate of AdamW, warmed up over 5 % of the steps, then a cosine to 0.
        weight_decay: Weight decay of AdamW.
        averaging: Decay per step of the moving average of the weights, which is the result.
        registered: Share of examples that are upright, as in the second pass.
        cut: Share of examples whose fingers or wrist are cut off. Their key points keep their
            places, by which such hands are recognised, see ``prediction.refusals``.
        length: Least and greatest length of the hand, as a fraction of the square's side.
        seed: Seed of order and augmentation.
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
