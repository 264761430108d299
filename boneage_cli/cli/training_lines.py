"""The lines that ``train`` and ``sweep`` print during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boneage_cli.cli.console import console
from boneage_cli.wording import counted

if TYPE_CHECKING:
    from boneage_cli.core.config import Experiment


def print_stage(experiment: Experiment) -> None:
    """Prints a stage's name, image sizes and number of epochs before it is trained."""
    from boneage_cli.core.views import describe_shapes, shapes_of

    epochs = experiment.training.epochs
    console.print(
        f"{experiment.name}: {describe_shapes(shapes_of(experiment))} pixels, "
        f"{counted(epochs, 'epoch')}",
        markup=False,
    )


def print_epoch(row: dict[str, float]) -> None:
    """Prints the metrics of an epoch on one line."""
    figures = [f"epoch {row['epoch']:3.0f}", f"train loss {row['train_loss']:7.3f}"]
    if "val_mae" in row:
        figures.append(f"train MAE {row['train_mae']:6.2f}")
        figures.append(f"validation MAE {row['val_mae']:6.2f} months")
    if "val_sex_error" in row:
        figures.append(f"validation sexes right {1 - row['val_sex_error']:.1%}")
    figures.append(f"{row['images_per_second']:.0f} images/s")
    console.print("  ".join(figures))
