"""The folder of a model's metrics: none of another measurement is overwritten or mixed in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boneage_cli.core.evaluation.ages import AGE_FILES
from boneage_cli.core.evaluation.sexes import SEX_FILES
from boneage_cli.core.evaluation.stress import STRESS_FILES
from boneage_cli.core.run_record import is_trained_on
from boneage_cli.core.runs import run_of
from boneage_cli.errors import BoneageError
from boneage_cli.json_files import read_json


def metrics_folder(bundles: Sequence[Path], name: str, about: Mapping[str, Any]) -> Path:
    """Returns the default folder of a model's metrics, below its run's folder or the current one.

    Unless the data set is the one that the run was trained on, its name is part of the folder's
    name. If the folder has metrics of another measurement, a number is appended.

    Args:
        bundles: Bundles or run folders; for several, the current folder is used.
        name: Name of the radiographs, for the folder.
        about: What identifies the measurement, with ``data`` and ``tta``.
    """
    run = run_of(bundles[0]) if len(bundles) == 1 else None
    data = "" if run and is_trained_on(run, about["data"]) else f"{Path(about['data']).name}-"
    stem = f"evaluation-{data}{name}" + ("-tta" if about["tta"] else "")
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    folders = ((run or Path()) / each for each in names)
    return next(folder for folder in folders if _is_free(folder, about))


def _is_free(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether a folder has no metrics, or those of the same measurement."""
    kept = [folder / names[0] for names in (AGE_FILES, SEX_FILES, STRESS_FILES)]
    try:
        there = [read_json(path) for path in kept if path.exists()]
    except BoneageError:
        return False
    return all(_identity(earlier) == _identity(about) for earlier in there)


def remove_evaluation(
    folder: Path, names: Sequence[str], unless: Mapping[str, Any] | None = None
) -> None:
    """Deletes the files of an earlier evaluation, if they are those of one.

    Args:
        folder: Their folder.
        names: The files' names; the first is the JSON document with the metrics.
        unless: What identifies a measurement whose files stay.

    Raises:
        OSError: They cannot be deleted.
    """
    try:
        earlier = read_json(folder / names[0])
    except BoneageError:
        return
    if "model" not in earlier or (unless and _identity(unless) == _identity(earlier)):
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what identifies a measurement, with absolute paths."""
    names = ("split", "chosen", "chosen_of", "label_version", "tta", "precision")
    models = [str(Path(model).resolve()) for model in about.get("model", ())]
    data = str(Path(about.get("data", "")).resolve())
    return {"model": models, "data": data} | {name: about.get(name) for name in names}
