"""Error messages for invalid settings, in terms of the settings file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_TYPE = re.compile(r"constrained-|function-|.*\[.*\]")


def explain(error: ValidationError, schema: type[BaseModel]) -> Iterator[str]:
    """Yields a sentence for each invalid setting; for an unknown name it suggests the nearest one.

    Args:
        error: The result of validating the settings against the schema.
        schema: The schema; each of its fields has a default.
    """
    for item in error.errors():
        # For a union of types, pydantic adds the names of its types to the location.
        location = [str(part) for part in item["loc"] if not _TYPE.match(str(part))]
        key = ".".join(location)
        if item["type"] == "extra_forbidden":
            known = _known_keys(schema, location[:-1])
            near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
            # A key in the wrong section is as common as a misspelt one.
            everywhere = [name for name, _ in flatten(schema().model_dump())]
            elsewhere = [name for name in everywhere if name.split(".")[-1] == location[-1]]
            near = [".".join([*location[:-1], name]) for name in near]
            hint = elsewhere[0] if elsewhere else near[0] if near else None
            suggestion = f"did you mean {hint}?" if hint else f"known are {', '.join(known)}"
            yield f"unknown setting {key}; {suggestion}"
        elif item["type"] in ("model_type", "model_attributes_type"):
            yield f"{key or 'settings'}: must be a section of settings, not {item['input']!r}"
        else:
            reason = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
            given = item["input"]
            shown = "" if isinstance(given, Mapping | BaseModel) else f" (given {given!r})"
            yield f"{key or 'settings'}: {reason}{shown}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each leaf of nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _known_keys(schema: type[BaseModel], section: Sequence[str]) -> list[str]:
    for part in section:
        annotation = schema.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        schema = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(schema.model_fields)
