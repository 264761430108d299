"""Options that several commands have in common."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Split(str, Enum):
    """The splits of a data set."""

    train = "train"
    validation = "validation"
    test = "test"


class Device(str, Enum):
    """Where the network runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(str, Enum):
    """The arithmetic of the network."""

    auto = "auto"
    full = "32"
    bf16 = "bf16"
    fp16 = "fp16"


ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="BUNDLE",
        help="A .safetensors bundle or a run folder; of a cross-validation, all folds. Give it "
        "several times, or several with commas between them, to average their ages. Default: the "
        "model that the package carries.",
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option("--device", help="Where the network runs; auto takes a GPU if there is one."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="The network's arithmetic; auto takes bf16 or fp16 where the hardware has it.",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Radiographs per pass of the network.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Threads that read files. Default: one per core."),
]
TtaOption = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Average over mirrored and slightly turned views of each hand: slower, often closer.",
    ),
]


def model_paths(names: list[str] | None) -> list[Path]:
    """The bundles and folders that ``--model`` names, or else the package's model."""
    from boneage_cli.core.runs import SHIPPED_MODEL

    if not names:
        return [SHIPPED_MODEL]
    paths = []
    for name in names:
        # A comma may be part of a file's name.
        parts = [name] if Path(name).exists() else name.split(",")
        paths += [Path(part.strip()) for part in parts if part.strip()]
    return paths
