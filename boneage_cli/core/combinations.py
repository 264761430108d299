"""Combinations of settings files and varied values, as for a sweep."""

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
    choices = dict(_choice(text) for text in vary)
    if len(choices) < len(vary):
        raise BoneageError("--vary: a setting is named twice; give all its values at once")
    found: dict[str, Combination] = {}
    files: Sequence[Path | None] = configs or [None]
    for config in files:
        for values in itertools.product(*choices.values()):
            varied = dict(zip(choices, values, strict=True))
            base = load_experiment(config, [*overrides], flags=varied)
            for key in varied:
                if any(override.partition("=")[0].strip() == key for override in overrides):
                    raise BoneageError(f"--set {key}: is also given to --vary; remove one")
            name = "-".join([base.name, *(_slug(key, value) for key, value in varied.items())])
            if name in found:
                raise BoneageError(
                    f"{name}: twice in this sweep; rename one with name = in its file"
                )
            experiment = base.model_copy(update={"name": name})
            found[name] = Combination(experiment, config, base.name, varied)
    return list(found.values())


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
    text = re.sub(r"[^A-Za-z0-9._]+", "_", str(value).lower()).strip("_")
    # Text such as a backbone's name explains itself; a number needs the setting's name.
    return text if isinstance(value, str) else f"{key.rpartition('.')[2]}-{text}"
