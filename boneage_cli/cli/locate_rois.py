"""``boneage locate-rois``: crops the wrist and the metacarpals with the phalanges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.choices import Background, RoiMethod
from boneage_cli.cli.commands import EXIT_FINDINGS
from boneage_cli.cli.console import fail, print_fields, print_table
from boneage_cli.cli.options import BatchSizeOption, DataOption, DeviceOption, Split, WorkersOption
from boneage_cli.errors import BoneageError


def locate_rois(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            help="Radiographs, folders, text lists with one path per line, CSV tables, or - for a "
            "text list on standard input; requires --output. Default: the data set of --data.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        list[Split] | None,
        typer.Option(
            "--split",
            help="A split of the data set; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The folder for the crops. Default: rois-keypoints or rois-gradcam in the data "
            "set.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        RoiMethod, typer.Option("--method", help="How the regions are located (see above).")
    ] = "keypoints",
    size: Annotated[
        int,
        typer.Option(
            "--size", min=32, max=1024, help="Side length of the crops, pixels; typically 128–256."
        ),
    ] = 192,
    background: Annotated[
        Background | None,
        typer.Option(
            "--background",
            help="Whether everything but the hand is made black. Default: remove with keypoints, "
            "keep with gradcam, which cannot remove it.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="BUNDLE",
            help="gradcam: a global model trained without regions.registered_hand, as a "
            ".safetensors bundle or a run folder. keypoints: a bundle of 'boneage "
            "train-landmarks'; default: the one that comes with the package.",
            show_default=False,
        ),
    ] = None,
    heatmap_threshold: Annotated[
        float,
        typer.Option(
            "--heatmap-threshold",
            min=0.01,
            max=0.99,
            help="gradcam: minimum heat of a peak, relative to the maximum; typically 0.25–0.4.",
        ),
    ] = 0.3,
    save_heatmaps: Annotated[
        bool,
        typer.Option(
            "--save-heatmaps",
            help="Also save a picture of each radiograph with its regions, key points or heat map.",
        ),
    ] = False,
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Crop the wrist and the metacarpals with phalanges from radiographs.

    [bold]Examples[/bold]

    \b
      boneage locate-rois
      boneage locate-rois --data rsna --split test --save-heatmaps
      boneage locate-rois hand.png scans/ --output crops/ --size 256
      boneage locate-rois --method gradcam --model runs/s1-global

    [bold]Methods[/bold]

    keypoints (default): a network that comes with the package locates the tips
    of the middle finger and the thumb, and the capitate. The hand is rotated,
    scaled and, if mirrored, flipped to one pose, fingers upwards and thumb at
    the right; the regions are cropped from it and the background is made
    black. Works at any rotation of the hand.

    gradcam: squares with a side of 0.48 of the shorter image side, at the two
    places that matter most to the age predicted by a trained model of the
    whole radiograph (Grad-CAM): the lower of the two hottest peaks is the
    wrist, the hottest peak above its square the metacarpals and phalanges.
    Fingers must point upwards. For a model with sex as an input, the maps of
    both sexes are averaged.

    [bold]What it writes[/bold]

    For each split a folder in rois-keypoints or rois-gradcam (with INPUT, in
    the --output folder itself):

    \b
      carpal/<id>.png     the wrist
      metaph/<id>.png     metacarpals and proximal phalanges
      heatmaps/<id>.png   with --save-heatmaps: green and yellow squares, the
                          thick side is the crop's upper one
      rois.csv            a row for each radiograph
      rois.json           the settings

    rois.csv has id, path, method, the key points middle_tip, thumb_tip and
    capitate (_x, _y; empty for gradcam), the corners carpal_x1, carpal_y1 …
    carpal_x4, carpal_y4 and metaph_x1 … (the crop's top left, top right, bottom
    right and bottom left corner), confidence (0 to 1), fallback, error and key.
    Coordinates are fractions of the image's width and height; corners may lie
    outside the image. The area outside is black, or with --method keypoints
    --background keep it has the gray level of the image's border.

    [bold]Fallbacks[/bold]

    If no hand is found, the key points of an average radiograph are used. With
    gradcam, if no second peak above the wrist's square reaches the threshold,
    the second square is the first one reflected through the image's centre; if
    no peak reaches it, both squares are at the centre. These rows have
    fallback = True and are counted at the end.

    [bold]Run it again[/bold] to make only crops that are missing or out of date:
    for new images, another model, other settings, or after an interruption.
    Crops of images that are no longer named are removed.

    [bold]Exit status[/bold]: 0 if all were cropped, 1 if some could not be read
    (each is named, the others are cropped), 2 if the command line or the data
    are invalid.
    """
    from boneage_cli.core.overwriting import check_pictures
    from boneage_cli.core.prediction.inputs import cases
    from boneage_cli.core.regions.roi_settings import RoiSettings
    from boneage_cli.core.regions.rois import locate_dataset_rois, locate_rois
    from boneage_cli.datasets.find_dataset import find_dataset

    if inputs and (data or split):
        raise BoneageError(
            "INPUT: cannot be combined with --data or --split; give one or the other"
        )
    if inputs and output is None:
        raise BoneageError("--output: name the folder where the crops of INPUT go")
    by_default = "keep" if method == "gradcam" else "remove"
    settings = RoiSettings(
        method=method,
        size=size,
        background_removed=(background or by_default) == "remove",
        heatmap_threshold=heatmap_threshold,
        model=model,
    )
    if inputs and output is not None:
        names = [str(path) for path in inputs]
        check_pictures(output, names, "place with --output")
        found = cases(names)
        results = [
            locate_rois(
                found,
                output,
                settings,
                save_heatmaps=save_heatmaps,
                device=device,
                batch_size=batch_size,
                workers=workers,
                processes=True,
            )
        ]
    else:
        results = locate_dataset_rois(
            find_dataset(data),
            output,
            settings,
            splits=[item.value for item in split] if split else None,
            save_heatmaps=save_heatmaps,
            device=device,
            batch_size=batch_size,
            workers=workers,
            processes=True,
        )
    for result in results:
        for error in result.errors:
            fail(error)
    print_table(
        f"Regions by {method}",
        ("folder", "radiographs", "made", "already there", "fallbacks", "failed"),
        [
            (
                result.folder.name,
                f"{result.radiographs:,}",
                f"{result.made:,}",
                f"{result.kept:,}",
                f"{result.fallbacks:,}",
                f"{len(result.errors):,}",
            )
            for result in results
        ],
        note="Fallbacks are guesses; the column fallback of rois.csv marks them."
        if any(result.fallbacks for result in results)
        else "",
    )
    for result in results:
        print_fields({"written": result.folder})
    if any(result.errors for result in results):
        raise typer.Exit(EXIT_FINDINGS)
