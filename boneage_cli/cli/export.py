"""``boneage export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.choices import ExportFormat
from boneage_cli.cli.console import print_aside, print_fields
from boneage_cli.wording import counted


def export(
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            metavar="BUNDLE",
            help="A .safetensors bundle or a run folder; of a cross-validation, the mean of its "
            "models is exported. Default: the model that comes with the package.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="The target runtime. Default: by the extension of --output, else onnx.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="The file, .onnx or .xml (OpenVINO adds a .bin beside it). Default: in the "
            "current folder, named after the model's settings.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            "-i",
            help="Radiographs, folders or lists on which the exported model is compared with "
            "torch; repeatable, the first 32 are used. Default: drawn hands.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a model for ONNX Runtime or OpenVINO.

    Inputs: one per view, the gray values of the hand as uint8 (batch, 1, height,
    width); and, if the model uses it, the sex as float32 (batch), 1 for boys.
    Outputs: months (batch) and, if the model predicts sex, male_probability
    (batch). Normalisation and a site's recalibration are part of the graph.
    Locating and cropping the hand and adjusting its contrast are not: predict
    does that. Settings and provenance are stored in the file's metadata.

    Before the file is kept, its outputs are compared with those of torch, for
    each image as a girl's and as a boy's if sex is an input; a difference of more
    than 0.01 months, or 0.001 in a probability, is an error. Run the file in
    OpenVINO as it was checked, with INFERENCE_PRECISION_HINT set to f32: on CPUs
    with bf16, OpenVINO otherwise uses bf16, which changes ages by tenths of a
    month.

    Additional packages are required: pip install 'boneage\\[export]'

    [bold]Examples[/bold]

    \b
      boneage export
      boneage export --model runs/a --format openvino --output clinic.xml
      boneage export --images scans/

    [bold]Exit status[/bold]: 0 if the file was written, 2 if it could not be.
    A research tool, not a medical device.
    """
    from boneage_cli.core.exporting import export_model
    from boneage_cli.core.runs import SHIPPED_MODEL

    path = model or SHIPPED_MODEL
    print_aside(f"exporting {path}: this takes up to a minute")
    made = export_model(path, format, output, [str(image) for image in images or ()])
    for name, shape in made.inputs.items():
        print_fields({"input": f"{name}: {shape}"})
    for name in made.differences:
        print_fields({"output": f"{name}: float32 (batch)"})
    what = counted(made.images, "radiograph" if images else "drawn hand")
    apart = ", ".join(
        f"{value:.5f} months" if name == "months" else f"{value:.1e} of {name}"
        for name, value in made.differences.items()
    )
    sexes = ", as girls and as boys" if made.sexes else ""
    fields = {
        "checked": f"{what}{sexes}: at most {apart} from torch",
        "written": ", ".join(str(file) for file in made.files),
    }
    if made.format == "openvino":
        fields["run it"] = "with INFERENCE_PRECISION_HINT set to f32, as it was checked"
    print_fields(fields)
