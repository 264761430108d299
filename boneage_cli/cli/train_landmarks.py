"""``boneage train-landmarks``: the network that finds the key points of the hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.cli.console import console, print_table
from boneage_cli.cli.options import Device, DeviceOption, refuse_beside

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
            help="Key points: id and middle_tip_x, middle_tip_y, thumb_tip_x, thumb_tip_y, "
            "capitate_x, capitate_y, as fractions of width and height. landmarks.csv of the demo "
            "data is one.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", "-i", metavar="DIR", help="A folder with <id>.png or the like."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", metavar="DIR", help="A data set's folder instead."),
    ] = None,
    native_size: Annotated[
        Path | None,
        typer.Option(
            "--native-size",
            metavar="CSV",
            help="id,width,height of the radiographs as they were taken, where the images were "
            "squashed to another shape.",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            metavar="CSV",
            help="Hand-drawn boxes (id,label,xmin,ymin,xmax,ymax) of wrists and MCP joints to "
            "measure the regions on; their radiographs are kept out of training.",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Passes over the radiographs.")
    ] = 16,
    drawings: Annotated[
        int, typer.Option("--drawings", min=0, help="Drawn hands to mix in.")
    ] = 200,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", min=0, help="Greatest rate of AdamW.")
    ] = 2e-3,
    seed: Annotated[int, typer.Option("--seed", help="Of order and augmentation.")] = 42,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="BUNDLE",
            help="A key-point bundle to start from. Default: ImageNet's weights.",
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
            help="Measure this bundle instead of training one; 'shipped' is the package's own.",
        ),
    ] = None,
    gradcam: Annotated[
        Path | None,
        typer.Option(
            "--gradcam",
            metavar="BUNDLE",
            help="Measure the regions that Grad-CAM of this age model places, on the same boxes, "
            "beside those of the key points. It must not have been trained on their radiographs.",
        ),
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Train the network that finds the key points of the hand, and measure it.

    The package carries one that was trained on radiographs; this makes
    another from your own key points. One id in seven, and every id with
    boxes, is kept out of training; the table at the end is measured on
    those: errors of the points as parts of the hand's length (capitate to
    fingertip), and the share of boxes whose centre lies inside the region
    they belong to.

    The bundle is written after each epoch: Ctrl-C leaves the last one, and
    --weights goes on from it.

    [bold]Examples[/bold]

      boneage train-landmarks --keypoints points.csv --images radiographs

      boneage train-landmarks --keypoints points.csv --data rsna --evaluate shipped
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
        device=device.value,
        begin=lambda training, held_out: console.print(
            f"radiographs  {training} to train on, {held_out} to measure on"
        ),
        report=lambda epoch, loss: console.print(f"epoch {epoch:3d}  loss {loss:.3f}"),
    )
    _print_metrics("Radiographs not trained on", figures)
    if salient is not None:
        _print_metrics(f"The same, regions by Grad-CAM of {gradcam}", salient)
    if evaluate is None:
        console.print(f"bundle       {output}", markup=False)


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
        ("turned by", "images", "median", "95 %", "not found", "wrists", "MCP"),
        rows,
        "Errors of key points in hand lengths, median and 95th percentile; wrist and MCP boxes "
        "whose centre lies in their region.",
    )
