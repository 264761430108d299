"""Error messages for invalid settings, in terms of the settings file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("model_type", "model_attributes_type"), "a section of settings"),
    "dict_type": "a table",
    "string_type": "text",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "of the pattern {pattern}",
    "too_short": "of {min_length} or more values",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
"""What a setting must be, by pydantic's type of error."""


def explain(error: ValidationError, schema: type[BaseModel]) -> Iterator[str]:
    """Yields a sentence for each invalid setting; for an unknown name it suggests the nearest one.

    Args:
        error: The result of validating the settings against the schema.
        schema: The schema; each of its fields has a default.
    """
    wanted: dict[str, list[str]] = {}
    given: dict[str, object] = {}
    depths: dict[str, int] = {}
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        key = _key(schema, location) or "settings"
        if item["type"] == "extra_forbidden":
            yield _unknown(schema, location)
        elif item["type"] in _WANTED:
            # A setting that may be of several types has an error for each. Where a value in a list
            # or table is wrong, the errors of the whole only say that it is of no other type, or
            # that the list is too short without that value.
            if len(location) > depths.get(key, -1):
                wanted[key], given[key], depths[key] = [], item["input"], len(location)
            if len(location) == depths[key]:
                wanted[key].append(_WANTED[item["type"]].format(**_bounds(item)))
        elif key not in wanted:
            shown = "" if isinstance(item["input"], Mapping) else f" (given {item['input']!r})"
            yield f"{key}: {item['msg'].removeprefix('Value error, ')}{shown}"
    for key, kinds in wanted.items():
        yield f"{key}: must be {' or '.join(dict.fromkeys(kinds))}, not {given[key]!r}"


def _bounds(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values for an entry of ``_WANTED``; pydantic makes a bound of 1 to 1.0."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in item.get("ctx", {}).items()
    }


def _key(schema: type[BaseModel], location: Sequence[str]) -> str:
    """Returns the setting at a location, to which pydantic adds positions and names of types."""
    fields: Mapping[str, FieldInfo] = schema.model_fields
    path = []
    for part in location:
        if part not in fields:
            break
        path.append(part)
        section = _section(fields[part])
        fields = section.model_fields if section else {}
    return ".".join(path)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    candidates = [field.annotation, *get_args(field.annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _unknown(schema: type[BaseModel], location: Sequence[str]) -> str:
    *sections, name = location
    parent: type[BaseModel] = schema
    for part in sections:
        parent = _section(parent.model_fields[part]) or parent
    # A key in the wrong section is as common as a misspelt one.
    everywhere = [key for key, _ in flatten(schema().model_dump())]
    elsewhere = [key for key in everywhere if key.split(".")[-1] == name]
    near = difflib.get_close_matches(name, parent.model_fields, n=1, cutoff=0.5)
    hints = elsewhere or [".".join([*sections, known]) for known in near]
    suggestion = (
        f"did you mean {hints[0]}?" if hints else f"known are {', '.join(parent.model_fields)}"
    )
    return f"unknown setting {'.'.join(location)}; {suggestion}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each leaf of nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
