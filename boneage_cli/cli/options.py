"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from boneage_cli.choices import Backend, Device, Precision
from boneage_cli.errors import BoneageError


class Split(str, Enum):
    """The splits of a data set."""

    train = "train"
    validation = "validation"
    test = "test"


class Sex(str, Enum):
    """The child's sex, as a letter or a word."""

    M = "M"
    F = "F"
    male = "male"
    female = "female"
    boy = "boy"
    girl = "girl"

    @property
    def is_male(self) -> bool:
        """Whether the sex is male."""
        return self in (Sex.M, Sex.male, Sex.boy)


ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="BUNDLE",
        help="A .safetensors bundle or a run folder; of a cross-validation, all folds are used. "
        "To average the predictions of several models, repeat the option or separate them with "
        "commas. Default: the model that comes with the package.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        "-d",
        help="The data set's folder, or its name in data/. Default: the only data set there.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder where decoded images are cached. Default: .cache in the data set."
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", help="Where the network runs; auto uses a GPU if there is one."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="The network's arithmetic. auto: fp16 on a GPU; 32 (fp32) on a CPU, or mixed "
        "(bf16/fp32) where the CPU supports it and the model was validated for it (ages within "
        "0.3 months); bf16: faster but less accurate.",
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="The runtime of the network; auto uses OpenVINO on a CPU and torch on a GPU. For "
        "OpenVINO, a model is converted at its first use and stored in the user's cache folder, or "
        "in $BONEAGE_CACHE.",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Radiographs per forward pass of the network.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of threads that read radiographs; for hundreds of radiographs, of processes "
        "instead (0.2 GB of memory each). Default: one per core.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of radiographs processed in parallel. Default: one per core.",
    ),
]
TtaOption = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Test-time augmentation: average over slightly rotated views of each hand, and "
        "mirrored ones if the model was trained on mirrored hands. Slower, often more accurate.",
    ),
]


def model_paths(names: list[str] | None) -> list[Path]:
    """Returns the bundles and folders given with ``--model``, by default the package's model."""
    from boneage_cli.core.runs import SHIPPED_MODEL

    return split_paths(names) if names else [SHIPPED_MODEL]


def split_paths(names: list[str]) -> list[Path]:
    """Returns the files and folders in arguments, which may be comma-separated lists."""
    paths = []
    for name in names:
        # A comma may be part of a file's name.
        parts = [name] if Path(name).exists() else name.split(",")
        paths += [Path(part.strip()) for part in parts if part.strip()]
    return paths


def refuse_beside(context: typer.Context, beside: str, options: Mapping[str, str]) -> None:
    """Rejects options that have no effect in combination with another.

    Args:
        context: The command's context.
        beside: The other option, for the message, such as ``with --resume``.
        options: What to do instead, by parameter name.

    Raises:
        BoneageError: One of the options is on the command line.
    """
    for name, instead in options.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.rstrip("_").replace("_", "-")
            raise BoneageError(f"--{option} {beside}: {instead}")
