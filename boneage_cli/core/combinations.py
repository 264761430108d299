"""Settings files with varied values, in all combinations or one at a time, as for a sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_cli.core.config import Experiment
from boneage_cli.core.experiment_file import load_experiment, toml_or_text
from boneage_cli.errors import BoneageError


@dataclass(frozen=True)
class Combination:
    """One of several experiments that are compared.

    Attributes:
        experiment: Its settings; their ``name`` is also the name of its folder.
        config_file: The settings file; None for the defaults.
        base: The experiment's name in that file.
        varied: The varied settings' values, by dotted key.
    """

    experiment: Experiment
    config_file: Path | None
    base: str
    varied: dict[str, Any]


def combinations(
    configs: Sequence[Path],
    vary: Sequence[str],
    overrides: Sequence[str] = (),
) -> list[Combination]:
    """Combines every settings file with every choice of values of the varied settings.

    Args:
        configs: Settings files; empty for the defaults.
        vary: Comma-separated TOML values, such as ``training.loss=mae,huber``.
        overrides: As in ``load_experiment``, for all combinations.

    Raises:
        BoneageError: A setting is unknown or invalid, or two combinations have the same name.
    """
    choices = _choices(vary, overrides)
    found: dict[str, Combination] = {}
    files: Sequence[Path | None] = configs or [None]
    for config in files:
        for values in itertools.product(*choices.values()):
            varied = dict(zip(choices, values, strict=True))
            base = load_experiment(config, [*overrides], flags=varied)
            name = "-".join([base.name, *(_slug(key, value) for key, value in varied.items())])
            if name in found:
                raise BoneageError(
                    f"{name}: twice in this sweep; rename one with name = in its file"
                )
            experiment = base.model_copy(update={"name": name})
            found[name] = Combination(experiment, config, base.name, varied)
    return list(found.values())


def one_at_a_time(
    config: Path | None,
    vary: Sequence[str],
    overrides: Sequence[str] = (),
) -> list[Combination]:
    """Returns a recipe and, after it, the recipe with each single change.

    Args:
        config: The settings file; None for the defaults.
        vary: As in ``combinations``; values that the recipe has itself are no change.
        overrides: As in ``load_experiment``; they belong to the recipe.

    Raises:
        BoneageError: A setting is unknown or invalid, is not changed by any of its values, or two
            changes have the same name.
    """
    choices = _choices(vary, overrides)
    if not choices:
        raise BoneageError("--one-at-a-time: name what changes with --vary or --backbones")
    recipe = load_experiment(config, overrides)
    found = {recipe.name: recipe}
    ends = [_last(key) for key in choices]
    for key, values in choices.items():
        # Every name states the setting: two settings may have the same value, such as none.
        setting = _last(key) if ends.count(_last(key)) == 1 else key
        changed = 0
        for value in values:
            experiment = load_experiment(config, overrides, flags={key: value})
            if experiment == recipe:
                continue
            name = f"{recipe.name}-{setting}-{_text(value)}"
            if name in found:
                raise BoneageError(f"{name}: twice in this sweep; sweep one of them by itself")
            found[name] = experiment.model_copy(update={"name": name})
            changed += 1
        if not changed:
            raise BoneageError(f"--vary {key}: only has the recipe's own value; name another")
    return [
        Combination(each, config, recipe.name, {key: _value_of(each, key) for key in choices})
        for each in found.values()
    ]


def _choices(vary: Sequence[str], overrides: Sequence[str]) -> dict[str, list[Any]]:
    choices = dict(_choice(text) for text in vary)
    if len(choices) < len(vary):
        raise BoneageError("--vary: a setting is named twice; give all its values at once")
    for key in choices:
        if any(override.partition("=")[0].strip() == key for override in overrides):
            raise BoneageError(f"--set {key}: is also given to --vary; remove one")
    return choices


def _choice(text: str) -> tuple[str, list[Any]]:
    key, separator, values = text.partition("=")
    if not separator or not key.strip() or not values.strip():
        raise BoneageError(
            f"--vary {text}: write section.key=value,value, as training.loss=mae,mse"
        )
    found = toml_or_text(f"[{values}]")
    # toml_or_text returns a string if the values are not TOML.
    several = found if isinstance(found, list) else [each.strip() for each in values.split(",")]
    for number, value in enumerate(several):
        if value in several[:number]:
            raise BoneageError(f"--vary {key.strip()}: {value} is named twice; name it once")
    return key.strip(), several


def _slug(key: str, value: Any) -> str:
    # Text such as a backbone's name explains itself; a number needs the setting's name.
    return _text(value) if isinstance(value, str) else f"{_last(key)}-{_text(value)}"


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _text(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", str(value).lower()).strip("_")


def _value_of(experiment: Experiment, key: str) -> Any:
    """Returns a setting by its dotted key; None if it is not set, such as an option of a loss."""
    value: Any = experiment.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part.strip()) if isinstance(value, dict) else None
    return value
