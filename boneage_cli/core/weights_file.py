"""``.safetensors`` files with weights and a JSON header; reading one executes no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor


class StoredWeights(Mapping[str, "Tensor"]):
    """Lazily loaded tensors of a .safetensors file: torch is imported at the first access.

    Args:
        content: The file's content.
        names: Names of the tensors to expose.
    """

    def __init__(self, content: bytes, names: Iterator[str]) -> None:
        self._content = content
        self._names = tuple(names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the exposed tensors, independent of the rest of the file."""
        size = int.from_bytes(self._content[:8], "little")
        header = json.loads(self._content[8 : 8 + size])
        found = hashlib.sha256()
        for name in sorted(self._names):
            start, end = header[name]["data_offsets"]
            found.update(f"{name} {header[name]['dtype']} {header[name]['shape']}".encode())
            found.update(self._content[8 + size + start : 8 + size + end])
        return found.hexdigest()

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load

        found = load(self._content)
        return {name: found[name] for name in self._names}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_weights(
    header: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path, *, half: bool = False
) -> None:
    """Writes a weights file atomically.

    Args:
        header: JSON values; ``format`` names the kind of file.
        weights: Tensors by name, on any device.
        path: The file.
        half: Whether floating-point weights are stored in 16 bits.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if half:
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
    content = save(tensors, metadata={"boneage": json.dumps(dict(header))})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def read_weights(
    path: Path, kind: str, form: str, maker: str, beside: tuple[str, ...] = ()
) -> tuple[dict[str, Any], StoredWeights, dict[str, np.ndarray]]:
    """Reads the header and the tensors of a weights file without torch.

    Args:
        path: The file.
        kind: What it should be, for messages, such as ``model bundle``.
        form: The ``format`` that its header must name.
        maker: The command that makes such files, for messages.
        beside: Beginnings of the names of tensors that are not weights.

    Returns:
        The header, the weights, and the other tensors by name.

    Raises:
        BoneageError: The file does not exist or is not of this format.
    """
    if not path.is_file():
        raise BoneageError(f"{path}: no such {kind}; '{maker}' makes one")
    try:
        # Raises the actual reason if the file is unreadable; safe_open reports it as missing.
        path.open("rb").close()
        with safe_open(path, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("boneage", "{}"))
            if header.get("format") != form:
                raise BoneageError(f"{path}: not a {kind} of format {form}; '{maker}' makes one")
            names = list(file.keys())
            others = {name: file.get_tensor(name) for name in names if name.startswith(beside)}
        kept = (name for name in names if name not in others)
        return header, StoredWeights(path.read_bytes(), kept), others
    except PermissionError as error:
        raise BoneageError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise BoneageError(
            f"{path}: not a readable .safetensors file ({error}); copy it again, or name another"
        ) from None
