"""Translates the YAML settings files of HDA_Project to this project's settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from boneage_cli.core.settings_errors import explain
from boneage_cli.errors import BoneageError
from boneage_cli.models.families import resolve_family
from boneage_cli.settings_section import Section

Count = Annotated[int, Field(ge=1)]
Channels = Annotated[tuple[Count, ...], Field(min_length=1)]

# Settings without a counterpart here, and what replaces them.
WITHOUT_MEANING = {
    "roi.locator.roi_path": "regions are kept in the cache of the data set",
    "roi.locator.pretrained_model_path": "regions are found by the shipped key-point network",
    "roi.extractor.heatmap_threshold": "regions are found by key points, not by heat maps",
    "roi.extractor.save_heatmaps": "regions are found by key points, not by heat maps",
    "training.results_csv": "every run gets a row in summary.csv, beside its folder",
    "training.perform_test": "'boneage evaluate --split test --model RUN' measures it, "
    "and fills in the run's row of summary.csv",
}


class _Data(Section):
    image_size: Count = 256
    clahe: bool = False
    augment: bool = False
    batch_size: Count = 16


class _Locator(Section):
    roi_path: str = ""
    pretrained_model_path: str = ""


class _Extractor(Section):
    roi_size: Count = 256
    heatmap_threshold: float = 0.4
    save_heatmaps: bool = False


class _Regions(Section):
    locator: _Locator = _Locator()
    extractor: _Extractor = _Extractor()


class _Model(Section):
    global_channels: Channels = (32, 64, 128)
    global_dense_units: Count = 128
    roi_channels: Channels = (32, 64)
    roi_dense_units: Count = 32
    fusion_dense_units: Channels = (256, 128)
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    use_gender: bool = False


class _Training(Section):
    epochs: Count = 30
    patience: Annotated[int, Field(ge=0)] = 10
    learning_rate: float = Field(3e-4, gt=0)
    results_csv: str = ""
    perform_test: bool = False


class S1Settings(Section):
    """The settings that HDA_Project's code reads, with its defaults."""

    data: _Data = _Data()
    roi: _Regions = _Regions()
    model: _Model = _Model()
    training: _Training = _Training()


def experiment_values_from_hda_project_yaml(
    path: Path, family: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Translates a YAML settings file of HDA_Project.

    Args:
        path: The file.
        family: ``global``, ``roi`` or ``fusion`` (or HDA_Project's aliases), which HDA_Project
            takes from its command line. None to infer it from the file's settings: fusion if there
            is ``fusion_dense_units``, roi if there are settings of the regions and none of the
            global network, else global.

    Returns:
        Nested values for ``parse_experiment``, and a note on each key that has no meaning here.

    Raises:
        BoneageError: The file cannot be read or is not YAML, a key is unknown (the message names
            the nearest known one; HDA_Project ignored it), or a value is invalid.
    """
    path = Path(path)
    given = _read(path)
    try:
        settings = S1Settings.model_validate(given)
    except ValidationError as error:
        raise BoneageError(f"{path}: " + "; ".join(explain(error, S1Settings))) from None
    if family is None:
        family = _family_of(settings)
    else:
        try:
            family = resolve_family(family)
        except ValueError as error:
            raise BoneageError(f"model.family: {error}") from None
    notes = [
        f"{path}: {key} has no meaning here: {reason}"
        for key, reason in WITHOUT_MEANING.items()
        if key in _keys_given(settings)
    ]
    return _experiment_values(settings, family, path.stem), notes


def _read(path: Path) -> Any:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoneageError(f"{path}: cannot be read ({error.strerror}); see configs/") from None
    # The YAML parser raises ValueError for a date that does not exist.
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BoneageError(f"{path}: not a YAML file: {reason}; correct it there") from None
    return {} if given is None else given


def _family_of(settings: S1Settings) -> str:
    model = settings.model.model_fields_set
    if "fusion_dense_units" in model:
        return "fusion"
    whole_hand = model & {"global_channels", "global_dense_units"}
    regions = model & {"roi_channels", "roi_dense_units"} or "roi" in settings.model_fields_set
    return "roi" if regions and not whole_hand else "global"


def _experiment_values(settings: S1Settings, family: str, name: str) -> dict[str, Any]:
    data, model, training = settings.data, settings.model, settings.training
    regions = (model.roi_dense_units,)
    branches: dict[str, dict[str, tuple[int, ...]]] = {
        "global": {"hand": ()},
        "roi": {"carpal": regions, "metaph": regions},
        "fusion": {
            "hand": (model.global_dense_units,),
            "carpal": regions,
            "metaph": regions,
        },
    }
    hidden = {
        "global": (model.global_dense_units,),
        "roi": (max(64, 2 * model.roi_dense_units),),
        "fusion": model.fusion_dense_units,
    }
    channels = {
        "hand": model.global_channels,
        "carpal": model.roi_channels,
        "metaph": model.roi_channels,
    }
    size = settings.roi.extractor.roi_size
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]", "-", name),
        "preprocessing": {
            "height": data.image_size,
            "width": data.image_size,
            "fit": "squash",
            "clahe": data.clahe,
            "clahe_clip_limit": 2.0,
            "clahe_tiles": 8,
        },
        "regions": {"height": size, "width": size},
        "model": {
            "family": family,
            "gender": model.use_gender,
            "backbone": "small_cnn",
            "weights": "none",
            "channels": {view: channels[view] for view in branches[family]},
            "in_channels": 1,
            "normalisation": "zscore",
            "branch_hidden": branches[family],
            "sex_fusion": "embedding",
            "sex_features": 8,
            "hidden": hidden[family],
            "dropout": model.dropout_rate,
        },
        "augmentation": {
            "enabled": data.augment,
            "flip": 0.5,
            "rotate": 2,
            "translate": 0,
            "scale": 0,
            "brightness": 0.02,
            "contrast": 0.02,
            "gamma": 0,
        },
        "training": {
            "epochs": training.epochs,
            "batch_size": data.batch_size,
            "optimiser": "adam",
            "learning_rate": training.learning_rate,
            "weight_decay": 0,
            "schedule": "plateau",
            "plateau_factor": 0.2,
            "plateau_patience": 3,
            "minimum_rate": 1e-6,
            "patience": training.patience,
            "loss": "huber",
            "loss_options": {"delta": 10},
            "gradient_clip": 0,
            "seed": 42,
        },
    }


def _keys_given(section: Section, prefix: str = "") -> Iterator[str]:
    for name in section.model_fields_set:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _keys_given(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
