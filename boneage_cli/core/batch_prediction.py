"""Batch prediction: from files, folders, lists and tables to a table of predictions."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_cli import __version__
from boneage_cli.core.overwriting import check_table_output, check_text_output
from boneage_cli.core.prediction.cases import Prediction
from boneage_cli.core.prediction.inputs import STANDARD_INPUT, cases, count_cases, may_state_sex
from boneage_cli.core.prediction.output import (
    COLUMNS,
    PICTURE,
    Row,
    prediction_row,
    row_lines,
    text_lines,
    write,
)
from boneage_cli.core.prediction.partial_table import PartialTable
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.errors import BoneageError
from boneage_cli.interrupts import interrupts_wait
from boneage_cli.progress import track

if TYPE_CHECKING:
    from boneage_cli.core.explanation.pictures import Explanations

LEFT_OUT = "left_out"
"""Key that marks a row to be left out of the table."""


@dataclass
class BatchOutcome:
    """The counts and errors of a batch.

    Attributes:
        total: Number of radiographs with an answer, failures included.
        failures: Number of radiographs that failed, by ``Prediction.reason``.
        left_out: Number of DICOM files without an image found in folders; they get no answer.
        pictures: Number of explanations drawn; None if not requested.
        undrawn: Reasons why others were not drawn.
    """

    total: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    pictures: int | None = None
    undrawn: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of files processed."""
        return self.total + self.left_out

    def count(self, row: Row) -> None:
        """Adds the row of one file to the counts."""
        if LEFT_OUT in row:
            self.left_out += 1
            return
        self.total += 1
        if row["error"] is not None:
            self.failures[row["reason"] or "other"] += 1

    @property
    def failed(self) -> int:
        """Number of radiographs that failed."""
        return self.failures.total()


def predict_batch(
    inputs: Sequence[str],
    bundles: Sequence[Path],
    *,
    male: bool | None = None,
    age: float | None = None,
    style: str = "text",
    output: Path | None = None,
    interval: int | None = None,
    explain: Path | None = None,
    tags: Sequence[str] = (),
    force: bool = False,
    tta: bool = False,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    backend: str = "auto",
    begin: Callable[[Predictor], None] | None = None,
    go_on: Callable[[int], None] | None = None,
    tell: Callable[[Prediction], None] | None = None,
) -> BatchOutcome:
    """Predicts radiographs and saves each answer as soon as it is available.

    Args:
        inputs: Image files, folders, lists and tables, as ``prediction.inputs.cases`` takes them.
        bundles: The model's bundles or run folders, averaged.
        male: The sex of every child whose table row has none.
        age: The chronological age of every such child, months.
        style: ``text``, one line per radiograph, without failed ones; or as in ``row_lines``.
        output: The file, which appears when it is complete; None for standard output.
        interval: The coverage of prediction intervals in percent; None for none.
        explain: A folder for pictures that explain each prediction; None for none.
        tags: Keywords of DICOM elements that become columns.
        force: Whether to predict images that do not look like a hand radiograph, too.
        tta: Whether to average over several views of each radiograph.
        batch_size: Radiographs per pass of the network.
        workers: Reader threads or worker processes; None for one per core.
        device: Where the network runs.
        precision: The precision it computes in.
        backend: The backend that runs it.
        begin: Called when the model is loaded.
        go_on: Called with the number of files that an interrupted call with the same arguments has
            processed, if any; the table is continued from there.
        tell: Called with each prediction, before it is written.

    Raises:
        BoneageError: The inputs, the model or the options do not fit together, or the output cannot
            be written.
    """
    if output is not None and style == "csv":
        check_table_output(output, ",".join(COLUMNS[:4]), inputs)
    elif output is not None:
        check_text_output(output, inputs)
    _check_tags(tags, style)
    unrolled = cases(inputs, male, age, tags)
    predictor = Predictor.load(bundles, device, precision, backend)
    if begin:
        begin(predictor)
    if predictor.needs_sex and male is None and not may_state_sex(inputs):
        raise BoneageError(
            "this model needs the child's sex, which no input names: give --sex M or --sex F, or a "
            "CSV table with a column sex"
        )
    if interval is not None:
        predictor.check_interval(interval)
    if age is not None:
        predictor.check_age("--age")
    explanations = None if explain is None else _explanations(predictor, explain, inputs)
    more = [*([PICTURE] if explain else []), *tags]
    outcome = BatchOutcome()
    with ExitStack() as stack:
        partial = None
        if output is not None and explain is None and _can_go_on(inputs, style, output):
            options = [male, age, interval, list(tags), force, tta]
            asked = _asked(inputs, predictor, options)
            partial = stack.enter_context(closing(PartialTable(output.resolve(), asked)))
            unrolled = partial.keep(unrolled)
            for row in partial.rows():
                outcome.count(row)
            if go_on and outcome.done:
                go_on(outcome.done)
        found: Any = predictor.predict_files(
            unrolled,
            batch_size=batch_size,
            workers=workers,
            tta=tta,
            interval=interval,
            force=force,
            processes=STANDARD_INPUT not in inputs,
            slow_source=STANDARD_INPUT in inputs,
        )
        predictions: Any = stack.enter_context(closing(found))
        if explanations:
            predictions = explanations.watch(predictions)
        # Result lines on a terminal already show the progress; a bar would break them up.
        running = output is None and sys.stdout is not None and sys.stdout.isatty()
        if sys.stderr.isatty() and not running:
            total, done = count_cases(inputs), outcome.done
            predictions = track(predictions, description="predict", total=total, initial=done)
        answers = _counted(predictions, inputs, outcome, tell, explained=explain is not None)
        if partial is not None:
            try:
                partial.add(answers)
            finally:
                if not outcome.total:
                    partial.discard()
            write(row_lines(_answered(partial.rows()), style, more), output)
            partial.remove()
        elif style == "text":
            shown = (prediction for prediction, row in answers if LEFT_OUT not in row)
            write(text_lines(shown), output)
        else:
            write(row_lines(_answered(row for _, row in answers), style, more), output)
    if explanations:
        outcome.pictures, outcome.undrawn = explanations.pictures, explanations.errors
    return outcome


def _counted(
    predictions: Iterable[Prediction],
    inputs: Sequence[str],
    outcome: BatchOutcome,
    tell: Callable[[Prediction], None] | None,
    explained: bool,
) -> Iterator[tuple[Prediction, Row]]:
    """Yields each prediction with its row and counts it in the outcome.

    Raises:
        BoneageError: There were only DICOM files without an image.
    """
    for prediction in predictions:
        row = prediction_row(prediction, explained=explained)
        # Archives contain reports and the like among the radiographs.
        if prediction.reason == "no-image" and prediction.case.searched_for:
            row[LEFT_OUT] = True
        elif tell:
            tell(prediction)
        outcome.count(row)
        yield prediction, row
    if outcome.left_out and not outcome.total:
        raise BoneageError(
            f"{', '.join(inputs)}: no radiograph in it, but {outcome.left_out} DICOM files "
            "without an image (reports and the like); name another folder"
        )


def _can_go_on(inputs: Sequence[str], style: str, output: Path) -> bool:
    """Whether an interrupted call could be resumed: output to a table file, inputs re-readable."""
    is_file = output.is_file() or not output.exists()
    return is_file and style != "text" and STANDARD_INPUT not in inputs


def _asked(inputs: Sequence[str], predictor: Predictor, options: Sequence[Any]) -> dict[str, Any]:
    """Returns what determines the rows of a table, see ``PartialTable``."""
    return {
        "inputs": list(inputs),
        # Inputs may be paths relative to it.
        "folder": str(Path.cwd()),
        "models": [hashlib.sha256(file.read_bytes()).hexdigest() for file in predictor.files],
        "computed": [predictor.backend, predictor.precision, str(predictor.device)],
        "options": list(options),
        "boneage": __version__,
    }


def _answered(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if LEFT_OUT not in row)


def _check_tags(tags: Sequence[str], style: str) -> None:
    if not tags:
        return
    if style == "text":
        raise BoneageError("--dicom-tags: text has no columns; add --format csv, json or jsonl")
    # pydicom takes a quarter of a second to import.
    from boneage_cli.imaging.dicom import DicomError, check_tags

    try:
        check_tags(tags)
    except DicomError as error:
        raise BoneageError(f"--dicom-tags: {error}") from None


def _explanations(predictor: Predictor, folder: Path, inputs: Sequence[str]) -> Explanations:
    # Explanations need torch, which takes seconds to import; predictions do not.
    with interrupts_wait():
        from boneage_cli.core.explanation.pictures import Explainer, Explanations

    return Explanations(Explainer(predictor), folder, inputs)
