"""Measuring a model on a split of known ages or sexes, from bundles to files of figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_cli import __version__
from boneage_cli.core.evaluation.figures_folder import figures_folder
from boneage_cli.core.evaluation.measuring import (
    Measured,
    measure,
    note_test_figures,
    write_measured,
)
from boneage_cli.core.evaluation.stress import Stress, stress, write_stress
from boneage_cli.core.evaluation.training_overlap import trained_on
from boneage_cli.core.prediction.inputs import check_pictures
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import OUT_OF_FOLD, VALIDATION
from boneage_cli.datasets.labelled_split import LabelledSplit, labelled_split
from boneage_cli.errors import BoneageWarning
from boneage_cli.files import check_writable


@dataclass(frozen=True)
class ModelEvaluation:
    """What a model did on a split, and where that is written.

    Attributes:
        chosen: The radiographs.
        measured: The figures.
        stressed: Those of perturbed copies; None where they were not asked for.
        folder: Where the files are.
        files: All that were written.
        summary: The table of runs that was told the test figures, and its columns; None where
            there was none to tell.
    """

    chosen: LabelledSplit
    measured: Measured
    stressed: Stress | None
    folder: Path
    files: list[Path]
    summary: tuple[Path, list[str]] | None

    @property
    def failed(self) -> int:
        """How many radiographs, and perturbed copies, could not be predicted."""
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
    """Measures a model, or several as one, and writes the figures.

    Args:
        bundles: The model's bundles or run folders, averaged.
        data: A data set's folder or name, see ``find_dataset``.
        split: As in ``labelled_split``.
        sample: As in ``labelled_split``.
        output: The folder for the figures; None for that of ``figures_folder``.
        stressed: Whether to measure perturbed copies, too.
        tta: Whether to average over several views of each radiograph.
        batch_size: Radiographs per pass of the network.
        workers: Threads or processes that read; None for one per core.
        device: Where the network runs.
        precision: What it computes in.
        begin: Is called when the model is loaded.
        report: Is called with the figures as soon as they are written, before the perturbed
            copies, which take some thirty times as long.

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
    if stressed:
        predictor.check_age("--stress")
    _warn_of_choice(bundles, predictor, chosen)
    about = _about(bundles, predictor, chosen, tta)
    folder = output or figures_folder(bundles, chosen.name, about)
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
    files = write_measured(measured, folder, chosen.title)
    # Figures of an arithmetic that was asked for are no run's own.
    summary = note_test_figures(measured) if precision == "auto" else None
    if report:
        report(predictor, chosen, measured)
    changed = None
    if stressed:
        changed = stress(
            predictor, chosen.manifest, batch_size=batch_size, workers=workers, tta=tta, about=about
        )
        files += write_stress(changed, folder, chosen.title)
    return ModelEvaluation(chosen, measured, changed, folder, files, summary)


def _warn_of_choice(bundles: Sequence[Path], predictor: Predictor, chosen: LabelledSplit) -> None:
    """Warns of radiographs that are not measured on, or were trained on."""
    if chosen.of_other_sex:
        _warn(f"{chosen.of_other_sex:,} radiographs left out: {predictor.of_one_sex}")
    for path in bundles:
        if seen := trained_on(path, chosen.manifest):
            _warn(
                f"{path}: {seen:,} of these radiographs were trained on, so the figures flatter "
                f"it; those in {VALIDATION}/ of a run or {OUT_OF_FOLD}/ of a cross-validation are "
                "of others"
            )


def _about(
    bundles: Sequence[Path], predictor: Predictor, chosen: LabelledSplit, tta: bool
) -> dict[str, Any]:
    """What names the measurement, in its files and for the folder that they go to."""
    return {
        "model": [str(path) for path in bundles],
        "data": str(chosen.folder),
        "split": chosen.split,
        "chosen_of": chosen.chosen_of,
        "label_version": chosen.label_version,
        "tta": tta,
        "precision": predictor.precision,
        "backend": predictor.backend,
        "boneage": __version__,
    }


def _warn(message: str) -> None:
    warnings.warn(message, BoneageWarning, stacklevel=3)
