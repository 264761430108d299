"""Weights and a JSON header in one ``.safetensors`` file; reading one runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file


def write_weights(
    header: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path, *, half: bool = False
) -> None:
    """Writes a file, whole or not at all.

    Args:
        header: JSON values; ``format`` names the kind of file.
        weights: Tensors by name, on any device.
        path: The file.
        half: Whether floating point weights are kept in 16 bits.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if half:
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"boneage": json.dumps(dict(header))})


def read_weights(
    path: Path, kind: str, form: str, maker: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the header and the tensors of a file.

    Args:
        path: The file.
        kind: What it should be, for messages, such as ``model bundle``.
        form: The ``format`` that its header must name.
        maker: The command that makes such files, for messages.

    Raises:
        BoneageError: There is no such file, or it is not of this format.
    """
    if not path.is_file():
        raise BoneageError(f"{path}: no such {kind}; '{maker}' makes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("boneage", "{}"))
            if header.get("format") != form:
                raise BoneageError(f"{path}: not a {kind} of format {form}; '{maker}' makes one")
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BoneageError(f"{path}: not a readable .safetensors file ({error})") from None
