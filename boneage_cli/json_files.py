"""JSON documents: written whole and without NaN, and read with errors of one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from boneage_cli.errors import BoneageError
from boneage_cli.files import whole_file

Model = TypeVar("Model", bound=BaseModel)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Writes a JSON document; NaN and infinity become null."""
    text = json.dumps(_finite(values), indent=2, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _finite(values: Any) -> Any:
    """Returns the same values with None for NaN and infinity, which JSON cannot represent."""
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Reads a JSON document that is an object.

    Args:
        path: The file.
        hint: How to solve it, added to the error message.

    Raises:
        BoneageError: It is missing or damaged, or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _unreadable(path, reason, hint) from None
    if not isinstance(values, dict):
        raise _unreadable(path, "not a JSON object", hint)
    return values


def read_json_as(kind: type[Model], path: Path, hint: str = "") -> Model:
    """Reads a JSON document that has the fields of a model.

    Args:
        kind: The model.
        path: The file.
        hint: How to solve it, added to the error message.

    Raises:
        BoneageError: It is missing or damaged, or has other fields.
    """
    values = read_json(path, hint)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = ": ".join((".".join(map(str, first["loc"])), first["msg"]))
        raise _unreadable(path, wrong, hint) from None


def _unreadable(path: Path, reason: object, hint: str) -> BoneageError:
    return BoneageError(f"{path}: cannot be read ({reason})" + (f"; {hint}" if hint else ""))
