from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator

import pytest

from boneage_cli.core.prediction.cases import Case, Prediction
from boneage_cli.core.prediction.output import (
    COLUMNS,
    csv_lines,
    json_array,
    prediction_row,
    row_lines,
    text_lines,
    write,
)
from boneage_cli.errors import BoneageError


def lines(found: Iterable[Prediction], style: str) -> Iterator[str]:
    """Yields the lines of predictions in a style of predict."""
    return text_lines(found) if style == "text" else row_lines(map(prediction_row, found), style)


FOUND = [
    Prediction(Case("data/test_imgs/1234.png", id="1234"), 126.5, True),
    Prediction(Case('odd, "name".png'), None, None, "truncated"),
    Prediction(Case("small.png"), -0.01, None),
]


def test_text_is_exactly_the_line_of_s3_and_leaves_out_what_failed():
    assert list(text_lines(FOUND)) == [
        "data/test_imgs/1234.png: 10 years 6 months (126.5 months)\n",
        "small.png: 0 years 0 months (0.0 months)\n",
    ]


def test_csv_has_a_row_for_each_radiograph_also_for_those_that_failed():
    rows = list(csv.DictReader(io.StringIO("".join(csv_lines(map(prediction_row, FOUND))))))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0] == {
        "path": "data/test_imgs/1234.png",
        "id": "1234",
        "sex": "M",
        "months": "126.5",
        "years_months": "10 years 6 months",
        **dict.fromkeys(("low", "high", "age", "sds", "reference"), ""),
        **dict.fromkeys(("predicted_sex", "male_probability", "laterality"), ""),
        **dict.fromkeys(("reason", "error", "warning"), ""),
    }
    assert (rows[1]["path"], rows[1]["months"], rows[1]["error"]) == (
        'odd, "name".png',
        "",
        "truncated",
    )


def test_interval_and_score_stand_in_every_format():
    found = [Prediction(Case("a.png"), 126.5, True, interval=(110.0, 143.0), age=120.0)]
    assert list(text_lines(found)) == [
        "a.png: 10 years 6 months (126.5 months), 9 years 2 months to 11 years 11 months, "
        "SDS +0.1 (Brush Foundation)\n"
    ]
    (row,) = csv.DictReader(io.StringIO("".join(csv_lines(map(prediction_row, found)))))
    assert (row["low"], row["high"], row["age"]) == ("110.0", "143.0", "120.0")
    assert (row["sds"], row["reference"]) == ("0.08", "Brush Foundation")
    (values,) = json.loads("".join(json_array(map(prediction_row, found))))
    assert (values["low"], values["high"], values["sds"]) == (110, 143, 0.08)


def test_a_score_that_hardly_any_child_has_is_a_warning():
    # Girls of 132 months have 137.86 months on average, with a standard deviation of 11.94.
    scores = {
        months: Prediction(Case("a.png", False), months, False, age=132.0)
        for months in (60.0, 70.0, 180.0)
    }
    assert scores[60.0].warning == "SDS -6.5 is beyond ±6: check the age and the sex"
    assert scores[70.0].warning is None
    assert scores[180.0].warning is None


def test_outside_the_reference_no_score_is_given():
    found = [Prediction(Case("a.png"), 10.0, False, age=2.0)]
    assert "SDS" not in "".join(text_lines(found))
    (values,) = json.loads("".join(json_array(map(prediction_row, found))))
    assert (values["age"], values["sds"], values["reference"]) == (2, None, None)


def test_json_is_one_array_with_the_same_fields():
    rows = json.loads("".join(json_array(map(prediction_row, FOUND))))
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert rows[0]["months"] == 126.5
    assert rows[1]["months"] is None
    assert rows[1]["error"] == "truncated"
    assert json.loads("".join(json_array([]))) == []


@pytest.mark.parametrize("style", ["text", "csv", "json", "jsonl"])
def test_each_line_comes_before_the_next_prediction_is_asked_for(style):
    asked = []

    def slow():
        for number in range(3):
            asked.append(number)
            yield Prediction(Case(f"{number}.png"), 12.0)

    chunks = lines(slow(), style)
    while "0.png" not in next(chunks):
        pass
    assert asked == [0]


@pytest.mark.parametrize(
    ("style", "start"), [("text", "data/"), ("csv", "path,"), ("json", "["), ("jsonl", "{")]
)
def test_a_file_is_written_in_the_style_asked_for(tmp_path, style, start):
    write(lines(FOUND, style), tmp_path / "new" / "ages.out")
    assert (tmp_path / "new" / "ages.out").read_text().startswith(start)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    (tmp_path / "ages.csv").write_text("old")

    def stops():
        yield FOUND[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(lines(stops(), "csv"), tmp_path / "ages.csv")
    assert (tmp_path / "ages.csv").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["ages.csv"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(lines(FOUND[:1], "text"), pipe)
        assert os.read(reader, 1000).decode() == "".join(text_lines(FOUND[:1]))
    finally:
        os.close(reader)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BoneageError, match=r"ages.csv: cannot be written .*--output"):
        write(lines(FOUND, "csv"), tmp_path / "file" / "ages.csv")


@pytest.mark.parametrize("style", ["text", "csv"])
def test_a_file_name_that_is_no_utf8_leaves_as_it_came(tmp_path, style):
    found = [Prediction(Case(os.fsdecode(b"caf\xe9.png")), 12.0)]
    write(lines(found, style), tmp_path / "ages")
    assert b"caf\xe9.png" in (tmp_path / "ages").read_bytes()


@pytest.mark.parametrize("name", ["hand", "a", "net", "./hand"])
def test_a_complaint_names_its_file_whatever_that_is_called(name: str):
    refused = Prediction(Case(name), None, error="refused: no hand was found (no-hand)")
    assert refused.complaint == f"{name}: refused: no hand was found (no-hand)"
    told = Prediction(Case(name), None, error=f"{name}: no such file")
    assert told.complaint == f"{name}: no such file"
