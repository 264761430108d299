"""Tests that the choices and defaults in the commands' help match the code behind them.

They are defined in both places, because commands import that code only when they are called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest

from boneage_cli import choices
from boneage_cli.cli import (
    bench,
    clahe,
    evaluate,
    fetch,
    locate_rois,
    options,
    predict,
    train,
    train_landmarks,
)
from boneage_cli.core.bench.networks import parse_batch_sizes
from boneage_cli.core.exporting import SUFFIXES
from boneage_cli.core.hardware import Arithmetic
from boneage_cli.core.landmark_training.recipe import LandmarkRecipe
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.regions.roi_settings import RoiSettings
from boneage_cli.core.runs import RUNS
from boneage_cli.datasets.demo import fetch_demo
from boneage_cli.datasets.kaggle import HANDLES
from boneage_cli.datasets.manifest import SPLITS
from boneage_cli.datasets.offline_clahe import CLIP_LIMIT, TILES


def default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (get_args(choices.Precision), ("auto", *get_args(Arithmetic))),
        ([split.value for split in options.Split], SPLITS),
        (get_args(choices.ExportFormat), SUFFIXES),
        (get_args(choices.Uploader), HANDLES),
    ],
)
def test_a_command_offers_what_there_is(offered: Iterable[str], taken: Iterable[str]) -> None:
    assert list(offered) == list(taken)


def test_defaults_of_options_are_those_of_what_they_set() -> None:
    recipe, rois = LandmarkRecipe(), RoiSettings()
    pairs = {
        "clahe --clip-limit": (default(clahe.clahe, "clip_limit"), CLIP_LIMIT),
        "clahe --tiles": (default(clahe.clahe, "tiles"), TILES),
        "locate-rois --size": (default(locate_rois.locate_rois, "size"), rois.size),
        "locate-rois --method": (default(locate_rois.locate_rois, "method"), rois.method),
        "locate-rois --heatmap-threshold": (
            default(locate_rois.locate_rois, "heatmap_threshold"),
            rois.heatmap_threshold,
        ),
        "train-landmarks --epochs": (
            default(train_landmarks.train_landmarks, "epochs"),
            recipe.epochs,
        ),
        "train-landmarks --drawings": (
            default(train_landmarks.train_landmarks, "drawings"),
            recipe.drawings,
        ),
        "train-landmarks --learning-rate": (
            default(train_landmarks.train_landmarks, "learning_rate"),
            recipe.learning_rate,
        ),
        "train --runs": (default(train.train, "runs"), RUNS),
        **{
            f"fetch demo --{name}": (default(fetch.demo, name), default(fetch_demo, name))
            for name in ("train", "validation", "test", "seed")
        },
        **{
            f"{command.__name__} --batch-size": (
                default(command, "batch_size"),
                default(Predictor.predict_files, "batch_size"),
            )
            for command in (predict.predict, evaluate.evaluate, bench.bench)
        },
    }
    assert {name: found for name, (found, _) in pairs.items()} == {
        name: wanted for name, (_, wanted) in pairs.items()
    }
    assert parse_batch_sizes(default(bench.bench, "batch_sizes")) == [1, 4, 8, 16, 32]
