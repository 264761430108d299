"""``boneage train-landmarks``: the network that finds the key points of the hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.console import console, print_fields, print_table
from boneage_cli.cli.options import DeviceOption, refuse_beside

_OF_TRAINING = dict.fromkeys(
    ("epochs", "drawings", "learning_rate", "seed", "weights", "output"),
    "nothing is trained; leave it out",
)


def train_landmarks(
    context: typer.Context,
    keypoints: Annotated[
        Path,
        typer.Option(
            "--keypoints",
            "-k",
            metavar="CSV",
            help="Table of key points: id, middle_tip_x, middle_tip_y, thumb_tip_x, thumb_tip_y, "
            "capitate_x and capitate_y, as fractions of width and height. Example: landmarks.csv "
            "of the demo data.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", "-i", metavar="DIR", help="A folder with images named <id>.png or similar."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", "-d", metavar="DIR", help="A data set's folder, instead of --images."
        ),
    ] = None,
    native_size: Annotated[
        Path | None,
        typer.Option(
            "--native-size",
            metavar="CSV",
            help="Table of the original sizes (id,width,height), if the images were squashed to "
            "another aspect ratio.",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            metavar="CSV",
            help="Table of manually drawn boxes (id,label,xmin,ymin,xmax,ymax) of wrists and MCP "
            "joints, to evaluate the regions on; their radiographs are excluded from training.",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Number of passes over the radiographs.")
    ] = 16,
    drawings: Annotated[
        int, typer.Option("--drawings", min=0, help="Number of drawn hands added to the training.")
    ] = 200,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0, help="Maximum learning rate of AdamW.")
    ] = 2e-3,
    seed: Annotated[
        int,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of data order and augmentation."),
    ] = 42,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="BUNDLE",
            help="A key-point bundle to start from. Default: ImageNet weights.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle to write.")
    ] = Path("landmarks.safetensors"),
    evaluate: Annotated[
        Path | None,
        typer.Option(
            "--evaluate",
            metavar="BUNDLE",
            help="Evaluate this bundle instead of training one; 'shipped' is the package's own.",
        ),
    ] = None,
    gradcam: Annotated[
        Path | None,
        typer.Option(
            "--gradcam",
            metavar="BUNDLE",
            help="Also evaluate, on the same boxes, the regions located by Grad-CAM of this age "
            "model. It must not have been trained on their radiographs.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the network that finds the key points of the hand, and measure it.

    The package comes with one that was trained on radiographs; this command
    trains another on your own key points. One id in seven, and every id with
    boxes, is held out of training. The table at the end gives, for the held-out
    radiographs, the errors of the key points as fractions of the hand's length
    (capitate to fingertip), and the share of boxes whose centre lies inside
    their region.

    The bundle is written after each epoch: Ctrl-C keeps the last one, and
    --weights continues from it.

    [bold]Examples[/bold]

    \b
      boneage train-landmarks --keypoints points.csv --images radiographs
      boneage train-landmarks --keypoints points.csv --data rsna \\
        --evaluate shipped
    """
    from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
    from boneage_cli.core.landmark_training.run import LandmarkFiles, train_or_measure
    from boneage_cli.core.landmarks import SHIPPED

    if evaluate is not None:
        refuse_beside(context, "with --evaluate", _OF_TRAINING)
    figures, salient = train_or_measure(
        LandmarkFiles(keypoints, images, data, native_size, boxes),
        LandmarkRecipe(epochs=epochs, drawings=drawings, learning_rate=learning_rate, seed=seed),
        output,
        weights=weights,
        evaluate=SHIPPED if str(evaluate) == "shipped" else evaluate,
        gradcam=gradcam,
        device=device,
        begin=lambda training, held_out: console.print(
            f"radiographs  {training} for training, {held_out} held out"
        ),
        report=lambda epoch, loss: console.print(f"epoch {epoch:3d}  loss {loss:.3f}"),
    )
    _print_metrics("Held-out radiographs", figures)
    if salient is not None:
        _print_metrics(f"The same, regions by Grad-CAM of {gradcam}", salient)
    if evaluate is None:
        print_fields({"bundle": output})


def _print_metrics(title: str, metrics: dict[str, dict[str, float]]) -> None:
    columns = {
        "images": "{:.0f}",
        "median": "{:.2%}",
        "p95": "{:.2%}",
        "fallbacks": "{:.0f}",
        "wrist_in_carpal": "{:.1%}",
        "mcp_in_metaph": "{:.1%}",
    }
    rows = [
        (pose, *(form.format(row[name]) if name in row else "–" for name, form in columns.items()))
        for pose, row in metrics.items()
    ]
    print_table(
        title,
        ("rotated by", "images", "median", "95 %", "not found", "wrists", "MCP"),
        rows,
        "Key-point errors in hand lengths, median and 95th percentile; share of wrist and MCP "
        "boxes whose centre lies in their region.",
    )
