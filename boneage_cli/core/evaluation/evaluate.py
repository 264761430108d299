"""Evaluates a model on a labelled split, from bundles to files of metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_cli import __version__
from boneage_cli.core.evaluation.measuring import (
    Measured,
    measure,
    note_test_metrics,
    write_measured,
)
from boneage_cli.core.evaluation.metrics_folder import metrics_folder, remove_evaluation
from boneage_cli.core.evaluation.stress import STRESS_FILES, Stress, stress, write_stress
from boneage_cli.core.fingerprints import is_among
from boneage_cli.core.overwriting import check_pictures, check_table_output
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import OUT_OF_FOLD, PREDICTIONS, SEX_PREDICTIONS, VALIDATION
from boneage_cli.datasets.labelled_split import LabelledSplit, labelled_split
from boneage_cli.errors import BoneageWarning
from boneage_cli.files import check_writable, explaining_write_errors


@dataclass(frozen=True)
class ModelEvaluation:
    """The evaluation of a model on a split, and its files.

    Attributes:
        chosen: The radiographs.
        measured: The metrics.
        stressed: The metrics on perturbed copies; None if they were not requested.
        folder: The output folder.
        files: The written files.
        summary: The table of runs into which the test metrics were written, and its columns; None
            if there is no such table.
    """

    chosen: LabelledSplit
    measured: Measured
    stressed: Stress | None
    folder: Path
    files: list[Path]
    summary: tuple[Path, list[str]] | None

    @property
    def failed(self) -> int:
        """Number of radiographs and perturbed copies that could not be predicted."""
        copies = self.stressed.failed.values() if self.stressed else ()
        return len(self.measured.failures) + sum(copies)


def evaluate_model(
    bundles: Sequence[Path],
    data: Path | None = None,
    split: str | None = None,
    *,
    sample: int | None = None,
    output: Path | None = None,
    stressed: bool = False,
    tta: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    begin: Callable[[Predictor], None] | None = None,
    report: Callable[[Predictor, LabelledSplit, Measured], None] | None = None,
) -> ModelEvaluation:
    """Evaluates a model, or the average of several, and writes the metrics.

    Args:
        bundles: The model's bundles or run folders, averaged.
        data: A data set's folder or name, see ``find_dataset``.
        split: As in ``labelled_split``.
        sample: As in ``labelled_split``.
        output: The output folder; None for that of ``metrics_folder``.
        stressed: Whether to evaluate perturbed copies, too.
        tta: Whether to average over several views of each radiograph.
        batch_size: Radiographs per pass of the network.
        workers: Number of reading threads or processes; None for one per core.
        device: The device of the network.
        precision: The numerical precision of the network.
        begin: Called when the model is loaded.
        report: Called with the metrics as soon as they are written, before the perturbed copies,
            which take about thirty times as long.

    Raises:
        BoneageError: A model cannot be loaded, there are no such radiographs, none is labelled or
            can be predicted, or the folder cannot be written.
    """
    predictor = Predictor.load(bundles, device, precision)
    if begin:
        begin(predictor)
    chosen = labelled_split(data, split, sample, labels=predictor.labels, male=predictor.only_male)
    if output is not None:
        radiographs = {str(Path(path).parent) for path in chosen.manifest["path"]}
        check_pictures(output, sorted(radiographs), "place with --output")
        for name in (PREDICTIONS, SEX_PREDICTIONS):
            check_table_output(output / name, "image_id,")
    if stressed:
        predictor.check_age("--stress")
    _warn_of_choice(predictor, chosen)
    about = _about(bundles, predictor, chosen, tta)
    folder = output or metrics_folder(bundles, chosen.name, about)
    check_writable(folder)
    measured = measure(
        predictor,
        chosen.manifest,
        baseline=chosen.mean_training_age,
        boys_in_training=chosen.boys_in_training,
        batch_size=batch_size,
        workers=workers,
        tta=tta,
        processes=True,
        about=about,
    )
    with explaining_write_errors(folder):
        files = write_measured(measured, folder, chosen.title)
    # The table of runs gets no metrics of a precision that the user chose.
    summary = note_test_metrics(measured) if precision == "auto" else None
    if report:
        report(predictor, chosen, measured)
    changed = None
    if stressed:
        changed = stress(
            predictor, chosen.manifest, batch_size=batch_size, workers=workers, tta=tta, about=about
        )
    with explaining_write_errors(folder):
        if changed is not None:
            files += write_stress(changed, folder, chosen.title)
        else:
            remove_evaluation(folder, STRESS_FILES, unless=about)
    return ModelEvaluation(chosen, measured, changed, folder, files, summary)


def _warn_of_choice(predictor: Predictor, chosen: LabelledSplit) -> None:
    """Warns of radiographs that are left out, or that were used for training."""
    if chosen.of_other_sex:
        _warn(f"{chosen.of_other_sex:,} radiographs left out: {predictor.of_one_sex}")
    seen = np.zeros(len(chosen.manifest), bool)
    for bundle in predictor.bundles:
        if bundle.trained_on is not None:
            seen |= is_among(chosen.manifest, bundle.trained_on)
    if seen.any():
        _warn(
            f"{seen.sum():,} of these radiographs were trained on, so the figures flatter the "
            "model; for figures of others take --split validation of the data set that it was "
            f"trained with, or {VALIDATION}/ of its run, or {OUT_OF_FOLD}/ of a cross-validation"
        )


def _about(
    bundles: Sequence[Path], predictor: Predictor, chosen: LabelledSplit, tta: bool
) -> dict[str, Any]:
    """Returns what identifies the evaluation, for its files and the name of its folder."""
    return {
        "model": [str(path) for path in bundles],
        "data": str(chosen.folder),
        "split": chosen.split,
        "chosen": None if chosen.chosen_of is None else len(chosen.manifest),
        "chosen_of": chosen.chosen_of,
        "label_version": chosen.label_version,
        "tta": tta,
        "precision": predictor.precision,
        "backend": predictor.backend,
        "boneage": __version__,
    }


def _warn(message: str) -> None:
    warnings.warn(message, BoneageWarning, stacklevel=3)
