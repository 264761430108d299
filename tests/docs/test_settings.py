"""Tests that docs/settings.md lists every setting; run this file to regenerate it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from boneage_cli.core.config import Experiment

REFERENCE = Path(__file__).parents[2] / "docs" / "settings.md"
HEAD = """# Settings

Every setting of `boneage train`, by section, with its default. In a settings file:

    [training]
    epochs = 5

On the command line: `--set training.epochs=5`. An unknown setting is refused, with a suggestion of
the nearest known name. Every run stores all of its settings in `settings.toml`. This page is
generated from `boneage_cli/core/config.py` by `.venv/bin/python tests/docs/test_settings.py`.

`[[stages]]` lists trainings that run before the main one, in order, each with the settings that
differ from the rest of the file. Here a small network is trained on small images, then on larger
ones, and becomes the teacher of a larger network:

    [model]
    backbone = "tf_efficientnet_lite2"

    [training]
    teacher = 2
    anew = true

    [[stages]]
    model = { backbone = "tf_efficientnet_lite0" }
    preprocessing = { height = 128, width = 128 }

    [[stages]]
    model = { backbone = "tf_efficientnet_lite0" }

`--set` changes the settings that all stages share; it does not override those that a stage sets
itself.
"""


def reference() -> str:
    """Generates the page."""
    return "\n".join([HEAD, *_section("", Experiment), ""])


def _section(name: str, schema: type[BaseModel]) -> Iterator[str]:
    sections = {}
    if name:
        yield f"## {name}"
        yield ""
        yield f"{(schema.__doc__ or '').partition(chr(10))[0]}"
        yield ""
    yield "| setting | default | values | meaning |"
    yield "|---|---|---|---|"
    for key, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections[key] = field.annotation
        else:
            default = field.get_default(call_default_factory=True)
            shown = "" if default == () or default == {} else f"`{_toml(default)}`"
            text = (field.description or "").replace("|", "\\|")
            values = _values(field.annotation, field.metadata)
            yield f"| `{key}` | {shown} | {values} | {text} |"
    yield ""
    for key, section in sections.items():
        yield from _section(key, section)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(kind: Any, rules: Sequence[Any] = ()) -> str:
    """Describes the values of a type; of several types the first, of a list its first value."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        details = [each.metadata if isinstance(each, FieldInfo) else [each] for each in parts[1:]]
        return _values(parts[0], [*rules, *chain(*details)])
    if get_origin(kind) is Literal:
        return ", ".join(f"`{_toml(choice)}`" for choice in parts)
    if get_origin(kind) in (tuple, Union, UnionType):
        return _values(parts[0])
    if kind is bool:
        return "`true`, `false`"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {_toml(getattr(rule, name))}"
        for rule in rules
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(bounds)


def test_the_page_lists_the_settings_as_they_are() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), (
        "regenerate it: python tests/docs/test_settings.py"
    )


def test_every_setting_says_what_it_is() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 70
    bare = [row.split("`")[1] for row in rows if row.endswith("|  |")]
    assert not bare


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
