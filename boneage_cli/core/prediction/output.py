"""Writes predictions as text, CSV, JSON or JSON Lines, one by one as they become available."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from boneage_cli.ages import years_and_months
from boneage_cli.core.prediction.cases import REASONS, Prediction
from boneage_cli.core.prediction.deviation_score import REFERENCE
from boneage_cli.errors import BoneageError
from boneage_cli.files import behind_link, explaining_write_errors, whole_file
from boneage_cli.sexes import says_boy, sex_letter
from boneage_cli.wording import decimal

COLUMNS = (
    *("path", "id", "sex", "months", "years_months", "low", "high", "age", "sds", "reference"),
    *("predicted_sex", "male_probability", "laterality", "reason", "error", "warning"),
)

PICTURE = "picture"
"""Column of explained predictions."""

Row = dict[str, Any]
"""The values of one radiograph by column, as JSON types."""

# Decimals of months. Ages agree between commands to a thousandth of a month.
DECIMALS = 4


def write(chunks: Iterable[str], output: Path | None = None) -> None:
    """Writes the lines of predictions, each as soon as it is available.

    Args:
        chunks: The text, in parts.
        output: The file, which appears when it is complete; None for standard output.

    Raises:
        BoneageError: The file or standard output cannot be written.
        BrokenPipeError: The reader of standard output has closed it.
    """
    if output is None:
        _write_stream(chunks)
        return
    with (
        explaining_write_errors(output),
        whole_file(behind_link(output)) as path,
        path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        stream.writelines(chunks)


def text_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yields BoneXage's line ``path: 10 years 6 months (126.5 months)`` if there is an age.

    The interval, standard deviation score, predicted sex and mark of a forced prediction follow on
    the same line, if there are any.
    """
    for prediction in predictions:
        parts = []
        if prediction.months is not None:
            parts.append(age_text(prediction.months))
        if prediction.interval is not None:
            parts.append(" to ".join(map(years_and_months, prediction.interval)))
        if (sds := prediction.sds) is not None:
            parts.append(f"SDS {sds:+.1f} ({REFERENCE})")
        if prediction.male_probability is not None:
            parts.append(sex_text(prediction.male_probability))
        if parts:
            answer = ", ".join(parts) + doubt_text(prediction)
            yield f"{prediction.case.path}: {answer}\n"


def age_text(months: float) -> str:
    """Formats an age as ``10 years 6 months (126.5 months)``."""
    return f"{years_and_months(months)} ({decimal(months, 1)} months)"


def sex_text(male_probability: float) -> str:
    """Formats the predicted sex as ``girl (probability 0.931)``, at most 0.999."""
    likelier = min(max(male_probability, 1 - male_probability), 0.999)
    return f"{'boy' if says_boy(male_probability) else 'girl'} (probability {likelier:.3f})"


def doubt_text(prediction: Prediction) -> str:
    """Suffix that marks a forced prediction: `` [doubtful: the wrist is cut off]``, or empty."""
    return "" if prediction.refusal is None else f" [doubtful: {REASONS[prediction.refusal]}]"


def row_lines(rows: Iterable[Row], style: str, more: Sequence[str] = ()) -> Iterator[str]:
    """Yields the lines of rows made by ``prediction_row``.

    Args:
        rows: The rows.
        style: ``csv``, a table with ``COLUMNS``; ``json``, one array with an object of ``COLUMNS``
            per radiograph; ``jsonl``, one such object per line.
        more: The columns that follow in every row: ``PICTURE``, requested DICOM elements.
    """
    if style == "csv":
        return csv_lines(rows, more)
    return json_array(rows) if style == "json" else json_lines(rows)


def csv_lines(rows: Iterable[Row], more: Sequence[str] = ()) -> Iterator[str]:
    """Yields a header and a CSV row per radiograph; a failed one has an error and no prediction.

    Args:
        rows: Rows of ``prediction_row``.
        more: As in ``row_lines``.
    """
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")

    def written(cells: Iterable[Any]) -> str:
        line.seek(0)
        line.truncate()
        writer.writerow(cells)
        return line.getvalue()

    columns = (*COLUMNS, *more)
    yield written(columns)
    for row in rows:
        yield written(row[column] for column in columns)


def json_array(rows: Iterable[Row]) -> Iterator[str]:
    """Yields a JSON array, one object per line; a failed one has an error and no prediction."""
    separator = "["
    for row in rows:
        yield f"{separator}\n{json.dumps(row, allow_nan=False)}"
        separator = ","
    yield "[]\n" if separator == "[" else "\n]\n"


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yields one JSON object per line (JSON Lines), which can be read and appended line by line."""
    for row in rows:
        yield f"{json.dumps(row, allow_nan=False)}\n"


def prediction_row(prediction: Prediction, *, explained: bool = False) -> Row:
    """Returns a prediction's values by ``COLUMNS`` and requested DICOM elements.

    Known sex is M or F, ages are in months, unknown values are None.

    Args:
        prediction: The prediction.
        explained: Whether to add ``PICTURE``.
    """
    months = prediction.months
    low, high = prediction.interval or (None, None)
    male, predicted_male = prediction.known_male, prediction.predicted_male
    probability, sds = prediction.male_probability, prediction.sds
    return {
        "path": prediction.case.path,
        "id": prediction.case.id,
        "sex": None if male is None else sex_letter(male),
        "months": None if months is None else round(months, DECIMALS),
        "years_months": None if months is None else years_and_months(months),
        "low": None if low is None else round(low, DECIMALS),
        "high": None if high is None else round(high, DECIMALS),
        "age": None if prediction.age is None else round(prediction.age, DECIMALS),
        "sds": sds,
        "reference": None if sds is None else REFERENCE,
        "predicted_sex": None if predicted_male is None else sex_letter(predicted_male),
        "male_probability": None if probability is None else round(probability, 6),
        "laterality": prediction.laterality,
        "reason": prediction.reason,
        "error": prediction.error,
        "warning": prediction.warning,
        **({PICTURE: prediction.picture} if explained else {}),
        **{name: prediction.tags.get(name) for name in prediction.case.tags},
    }


def _write_stream(chunks: Iterable[str]) -> None:
    if sys.stdout is None:
        raise BoneageError("standard output is closed; name a file with --output")
    # File names may contain bytes that are not UTF-8; they are written unchanged.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    for chunk in chunks:
        try:
            sys.stdout.write(chunk)
            # Flushes, so that the reader of a pipe gets each line at once.
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise BoneageError(
                f"standard output cannot be written ({error.strerror}); name a file with --output"
            ) from None
