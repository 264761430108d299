"""Reads and writes the settings of an experiment: files, overrides and stages."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from boneage_cli.core.config import Experiment
from boneage_cli.core.settings_errors import explain
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import whole_file
from boneage_cli.models.losses import options_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_experiment(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Experiment:
    """Reads settings from a TOML file, then applies flags, then ``section.key=value`` overrides.

    Args:
        path: The settings file, or one of HDA_Project's YAML files; None for the defaults.
        overrides: Such as ``training.epochs=5``; the value is parsed as TOML, else taken as text.
        flags: Values by dotted key, such as ``model.gender``; None leaves a setting as it is.

    Warns:
        BoneageWarning: A setting is ignored: a key of a YAML file that has no meaning here, or an
            option that the chosen loss does not have, or one of which a stage has its own.

    Raises:
        BoneageError: The file cannot be read, a key is unknown (the message names the nearest known
            one), or a value is invalid (the message gives the reason).
    """
    values: dict[str, Any] = {}
    if path is not None and Path(path).suffix.lower() in (".yaml", ".yml"):
        from boneage_cli.core.hda_project_yaml import experiment_values_from_hda_project_yaml

        # The layers in HDA_Project's file depend on the family, which the file does not name.
        family = (flags or {}).get("model.family")
        for override in overrides:
            key, _, value = override.partition("=")
            family = toml_or_text(value) if key.strip() == "model.family" else family
        values, notes = experiment_values_from_hda_project_yaml(Path(path), family)
        for note in notes:
            _warn(note)
    elif path is not None:
        try:
            # Editors of Windows begin a file with a mark that TOML does not know.
            values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise BoneageError(f"{path}: cannot be read ({error.strerror}); see configs/") from None
        except UnicodeDecodeError:
            raise BoneageError(f"{path}: not in UTF-8, as TOML is; save it as UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise BoneageError(f"{path}: not a TOML file: {error}") from None
    loss = _loss_of(values)
    chosen = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in chosen.items():
        _assign(values, key, value)
    for override in overrides:
        _apply_override(values, override)
    given = [*(f"{key}={value}" for key, value in chosen.items()), *overrides]
    if _loss_of(values) != loss and not any("loss_options" in each for each in given):
        _leave_options_of(loss, values)
    file = str(path) if path else "settings"
    # The mistake may be in the file, a flag or an override.
    experiment = parse_experiment(values, f"{file} with {', '.join(given)}" if given else file)
    _warn_of_stages(experiment, [each.partition("=")[0].strip() for each in given])
    return experiment


def _warn_of_stages(experiment: Experiment, keys: Sequence[str]) -> None:
    """Warns of chosen settings for which the file's stages have values of their own."""
    for key in () if "stages" in keys else keys:
        section, _, name = key.partition(".")
        setting = name.partition(".")[0]
        having = sum(
            setting in stage.get(section, {}) or f"{section}.{setting}" in stage
            for stage in experiment.stages
        )
        if setting and having:
            _warn(
                f"{key}: stages of the settings file have their own ({having} of "
                f"{len(experiment.stages)}), which stays; to train without stages: --set stages=[]"
            )


def _loss_of(values: Mapping[str, Any]) -> Any:
    training = values.get("training")
    return training.get("loss", "mae") if isinstance(training, Mapping) else "mae"


def _leave_options_of(loss: Any, values: dict[str, Any]) -> None:
    """Drops options of the file's loss that the newly chosen loss does not have."""
    training = values["training"]
    options = training.get("loss_options")
    if not isinstance(options, Mapping):
        return
    known = ("scale", *options_of(str(training["loss"])))
    kept = {name: value for name, value in options.items() if name in known}
    if left := sorted(options.keys() - kept.keys()):
        training["loss_options"] = kept
        _warn(f"training.loss_options: {', '.join(left)} of the file's loss {loss} left out")


def _warn(note: str) -> None:
    warnings.warn(note, BoneageWarning, stacklevel=3)


def parse_experiment(values: Mapping[str, Any], source: str) -> Experiment:
    """Validates settings against the schema.

    Args:
        values: Nested tables, as in TOML.
        source: The file's name, for messages.

    Raises:
        BoneageError: A key or value is invalid; the message says which and why.
    """
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise BoneageError(f"{source}: " + "; ".join(explain(error, Experiment))) from None
    earlier_stages(experiment, source)
    return experiment


def earlier_stages(experiment: Experiment, source: str = "settings") -> list[Experiment]:
    """Returns the experiments of the earlier stages, in order, see ``Experiment.stages``.

    Args:
        experiment: The experiment.
        source: The file's name, for messages.

    Raises:
        BoneageError: A stage is invalid; the message says which and why.
    """
    stages = []
    for number, changes in enumerate(experiment.stages, 1):
        values = experiment.model_dump(mode="json", exclude={"stages"})
        values["name"] = f"{experiment.name}-stage-{number}"
        # Not inherited: the final training's teacher is often a later stage than this one.
        values["training"] |= {"teacher": 0, "anew": False}
        for key, change in changes.items():
            # Settings of a section are replaced one by one; a setting that is a table as a whole.
            named = change if isinstance(change, Mapping) else {"": change}
            for name, value in named.items():
                _assign(values, f"{key}.{name}".rstrip("."), value)
        stage = parse_experiment(values, f"{source}: stage {number}")
        if _held_out_by(stage) != _held_out_by(experiment):
            raise BoneageError(
                f"{source}: stage {number}: training.seed, data.sex and whether sex matters cannot "
                "differ: they decide which radiographs are held out"
            )
        stages.append(stage)
    for number, (before, stage) in enumerate(pairwise([*stages, experiment]), 1):
        if stage.model.weights != before.model.weights and not stage.training.anew:
            raise BoneageError(
                f"{source}: stage {number} has other model.weights than the training after it, "
                "which begins with the weights of this stage; set model.weights in [model] only"
            )
    return stages


def _held_out_by(experiment: Experiment) -> tuple[object, ...]:
    """The settings that determine which radiographs a fold holds out."""
    return experiment.training.seed, experiment.data.sex, experiment.model.trains_with_sex


def experiment_to_toml(experiment: Experiment) -> str:
    """Formats settings as TOML, which ``load_experiment`` reads back to the same settings."""
    return tomli_w.dumps(experiment.model_dump(mode="json"))


def write_experiment(experiment: Experiment, path: Path) -> None:
    """Writes the settings as a TOML file."""
    with whole_file(path) as temporary:
        temporary.write_text(experiment_to_toml(experiment), encoding="utf-8")


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(part.strip() for part in key.split(".")):
        raise BoneageError(f"--set {override}: write section.key=value, as training.epochs=5")
    _assign(values, key, toml_or_text(text))


def toml_or_text(text: str) -> Any:
    """Parses a text as a TOML value; returns the text itself if it is not one, as in ``mae``."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = (part.strip() for part in key.split("."))
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise BoneageError(f"{key}: {section} is a value, not a section")
    values[name] = value
